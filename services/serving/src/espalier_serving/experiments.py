"""Experiments: a held split between the champion and one challenger, from draft over running to decided."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from espalier_sdk.errors import SpecError
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from espalier_serving import audit
from espalier_serving.endpoints import check_revision, live_experiment, lock_endpoint, revise
from espalier_serving.ids import uuid7
from espalier_serving.refusals import conflict, not_found
from espalier_serving.tables import LIVE_STATES, UNITS, Audit, Endpoint, Experiment, Variant

CREATED = "experiment.create"
WINDOW_SECONDS = 72 * 3600  # how long outcomes of a unit are waited for; GrowthBook's attribution window


def get_experiment(session: Session, experiment_id: str) -> Experiment:
    """Returns an experiment; raises Refused (not_found) where there is none."""
    row = session.get(Experiment, experiment_id)
    if row is None:
        raise not_found("experiment", experiment_id)
    return row


def list_experiments(session: Session, endpoint: str | None = None) -> list[Experiment]:
    """Returns experiments in the order of their making."""
    query = select(Experiment).order_by(Experiment.id)
    return list(session.scalars(query if endpoint is None else query.where(Experiment.endpoint == endpoint)))


def drafts_of(session: Session, endpoint: str, *, actor: str) -> list[Experiment]:
    """Returns the drafts of an endpoint that an actor has made, the oldest first."""
    made = select(Audit.subject).where(Audit.actor == actor, Audit.action == CREATED)
    query = select(Experiment).where(Experiment.endpoint == endpoint, Experiment.state == "draft")
    return list(session.scalars(query.where(Experiment.id.in_(made)).order_by(Experiment.id)))


def create_experiment(
    session: Session,
    endpoint: Endpoint,
    *,
    treatment: Variant,
    weights: Sequence[int],
    coverage: float,
    unit: str,
    rule: dict[str, Any] | None = None,
    actor: str,
) -> Experiment:
    """Makes a draft of the champion against a challenger; raises SpecError or Refused."""
    _check_split(weights, coverage, unit)
    if endpoint.champion is None:
        raise conflict(f"endpoint {endpoint.name!r} has no champion to compare with", remedy="propose a first variant")
    if treatment.id == endpoint.champion:
        raise conflict(f"{endpoint.name}/{treatment.name} is the champion", remedy="name another variant as treatment")
    row = Experiment(
        id=uuid7(),
        endpoint=endpoint.name,
        salt=secrets.token_hex(16),
        unit=unit,
        control=endpoint.champion,
        treatment=treatment.id,
        weights=list(weights),
        coverage=float(coverage),
        rule=_rule(rule or {}),
        state="draft",
        verdict=None,
    )
    session.add(row)
    session.flush()
    audit.record(session, actor=actor, action=CREATED, subject=row.id, new=describe_experiment(session, row))
    return row


def start_experiment(session: Session, experiment_id: str, *, if_match: str | None, actor: str) -> Experiment:
    """Lets a draft run; its variants must be ready, its control still the champion, and no other may run."""
    row = get_experiment(session, experiment_id)
    endpoint = lock_endpoint(session, row.endpoint)
    session.refresh(row)
    check_revision(endpoint, if_match)
    if row.state != "draft":
        raise conflict(f"experiment {row.id} is {row.state}, only a draft can be started")
    if other := live_experiment(session, endpoint.name):
        raise conflict(f"experiment {other.id} of {endpoint.name!r} is {other.state}", remedy="stop it first")
    if row.control != endpoint.champion:
        raise conflict("the champion has changed since the draft was made", remedy="make a new experiment")
    for variant in map(session.get_one, (Variant, Variant), (row.control, row.treatment)):
        if variant.state != "ready":
            raise conflict(
                f"variant {endpoint.name}/{variant.name} is {variant.state}{_reason(variant)}",
                remedy="start the experiment when it is ready",
            )
    _move(session, row, "running", actor=actor)
    revise(session, endpoint, author=actor, reason=f"experiment {row.id} started")
    return row


def stop_experiment(
    session: Session, experiment_id: str, *, if_match: str | None, actor: str, verdict: str = "stopped"
) -> Experiment:
    """Ends an experiment; the champion stays."""
    row = get_experiment(session, experiment_id)
    endpoint = lock_endpoint(session, row.endpoint)
    session.refresh(row)
    check_revision(endpoint, if_match)
    if row.state not in ("draft", *LIVE_STATES):
        raise conflict(f"experiment {row.id} is {row.state} already")
    was_live = row.state in LIVE_STATES
    row.verdict = verdict
    _move(session, row, "decided", actor=actor)
    if was_live:
        revise(session, endpoint, author=actor, reason=f"experiment {row.id} {verdict}")
    return row


def describe_experiment(session: Session, row: Experiment) -> dict[str, Any]:
    """Returns an experiment as clients read it; the salt stays here."""
    names = {variant_id: session.get_one(Variant, variant_id).name for variant_id in (row.control, row.treatment)}
    return {
        "id": row.id,
        "endpoint": row.endpoint,
        "unit": row.unit,
        "control": names[row.control],
        "treatment": names[row.treatment],
        "weights": row.weights,
        "coverage": row.coverage,
        "rule": row.rule,
        "state": row.state,
        "verdict": row.verdict,
    }


def _move(session: Session, row: Experiment, state: str, *, actor: str) -> None:
    old = {"state": row.state}
    row.state = state
    try:
        session.flush()
    except IntegrityError as error:  # another writer started one at the same moment (Postgres)
        raise conflict(f"another experiment of {row.endpoint!r} runs", remedy="stop it first") from error
    new = {"state": state, "verdict": row.verdict}
    audit.record(session, actor=actor, action=f"experiment.{state}", subject=row.id, old=old, new=new)


def _check_split(weights: Sequence[int], coverage: float, unit: str) -> None:
    if len(weights) != 2 or any(not isinstance(w, int) or not 1 <= w <= 99 for w in weights) or sum(weights) != 100:
        raise SpecError(
            "weights are the champion's and the challenger's percentage",
            field="weights",
            given=list(weights),
            accepted="two whole numbers from 1 to 99 that sum to 100",
        )
    if not 0 <= coverage <= 1:
        raise SpecError("coverage is a share of units", field="coverage", given=coverage, accepted="0 to 1")
    if unit not in UNITS:
        raise SpecError("there is no such unit", field="unit", given=unit, accepted=", ".join(UNITS))


def _rule(given: dict[str, Any]) -> dict[str, Any]:
    window = given.get("window_seconds", WINDOW_SECONDS)
    unknown = set(given) - {"window_seconds"}
    if unknown or isinstance(window, bool) or not isinstance(window, int) or not 1 <= window <= 90 * 86_400:
        raise SpecError(
            "the rule cannot be read", field="rule", given=given, accepted="window_seconds, from 1 to 90 days"
        )
    return {"window_seconds": window}


def _reason(variant: Variant) -> str:
    return f": {variant.error}" if variant.error else ""
