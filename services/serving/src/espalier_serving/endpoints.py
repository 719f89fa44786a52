"""Endpoints, their variants and revisions: reading them, and the changes that make a new revision.

Each function works in the session that it is given; an error leaves nothing behind when that is rolled back.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from espalier_sdk.artifacts import ArtifactRef
from espalier_sdk.errors import SpecError
from sqlalchemy import select
from sqlalchemy.orm import Session

from espalier_serving import audit
from espalier_serving.ids import now, short_id
from espalier_serving.limits import Limits, limits_of
from espalier_serving.refusals import conflict, not_found, stale
from espalier_serving.tables import LIVE_STATES, Audit, Endpoint, Experiment, Revision, Variant
from espalier_serving.variant_config import VariantConfig, engine_of

ACTIVATION = timedelta(seconds=3)  # replicas poll each second, so all of them know a revision before it is in force
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def get_endpoint(session: Session, name: str) -> Endpoint:
    """Returns an endpoint; raises Refused (not_found) where there is none."""
    row = session.get(Endpoint, name)
    if row is None:
        raise not_found("endpoint", name)
    return row


def lock_endpoint(session: Session, name: str) -> Endpoint:
    """Returns an endpoint that no other writer changes until this transaction ends; raises Refused (not_found)."""
    row = session.get(Endpoint, name, with_for_update=True, populate_existing=True)
    if row is None:
        raise not_found("endpoint", name)
    return row


def get_variant(session: Session, endpoint: str, name: str) -> Variant:
    """Returns a variant that is not retired, by its name; raises Refused (not_found) where there is none."""
    row = session.scalar(select(Variant).where(Variant.endpoint == endpoint, Variant.name == name))
    if row is None or row.state == "retired":
        raise not_found("variant", f"{endpoint}/{name}")
    return row


def variants_of(session: Session, endpoint: str) -> list[Variant]:
    """Returns the variants of an endpoint by name, the retired ones too."""
    return list(session.scalars(select(Variant).where(Variant.endpoint == endpoint).order_by(Variant.name)))


def live_experiment(session: Session, endpoint: str) -> Experiment | None:
    """Returns the running or paused experiment of an endpoint."""
    return session.scalar(select(Experiment).where(Experiment.endpoint == endpoint, Experiment.state.in_(LIVE_STATES)))


def check_revision(endpoint: Endpoint, if_match: str | None, *, required: bool = True) -> None:
    """Raises Refused (stale_revision) unless a write was decided on the current revision; `*` means any."""
    given = _given(if_match) if if_match is not None else None
    if given is None and not required:
        return
    if given != "*" and given != str(endpoint.revision):
        raise stale(given=given, current=endpoint.revision)


def _given(if_match: str) -> str:
    return if_match.strip().removeprefix("W/").strip('"')


def put_endpoint(
    session: Session, name: str, *, task: str, limits: dict[str, Any], if_match: str | None, actor: str
) -> Endpoint:
    """Creates an endpoint, or changes its limits; its task stays what it was."""
    checked = limits_of(limits)
    row = session.get(Endpoint, name, with_for_update=True)
    if row is None:
        if if_match is not None and _given(if_match) != "*":
            raise stale(given=_given(if_match), current=None)
        return create_endpoint(session, name, task=task, limits=checked, actor=actor)
    check_revision(row, if_match)
    if row.task != task:
        raise conflict(f"endpoint {name!r} answers {row.task}, not {task}", remedy="make another endpoint")
    old = row.limits
    row.limits = checked.model_dump()
    audit.record(
        session, actor=actor, action="endpoint.put", subject=name, old={"limits": old}, new={"limits": row.limits}
    )
    revise(session, row, author=actor, reason="limits")
    return row


def create_endpoint(session: Session, name: str, *, task: str, limits: Limits, actor: str) -> Endpoint:
    """Makes an endpoint without variants; raises SpecError for a name that cannot be one."""
    check_name("endpoint", name)
    row = Endpoint(name=name, task=task, champion=None, revision=0, limits=limits.model_dump())
    session.add(row)
    session.flush()
    audit.record(session, actor=actor, action="endpoint.create", subject=name, new={"task": task, "limits": row.limits})
    revise(session, row, author=actor, reason="created")
    return row


def add_variant(
    session: Session,
    endpoint: Endpoint,
    *,
    name: str,
    model: ArtifactRef,
    engine: dict[str, Any] | str,
    config: dict[str, Any],
    actor: str,
) -> tuple[Variant, bool]:
    """Returns the variant that serves a model, and whether anything changed.

    A model that is a variant already keeps it (a failed or retired one is proposed again); while an experiment runs
    another one is refused, and so is a name that another model has.
    """
    check_name("variant", name)
    chosen, options = engine_of(engine), VariantConfig.read(config)
    same = [row for row in variants_of(session, endpoint.name) if row.model_digest == model.digest]
    if alive := next((row for row in same if row.state not in ("failed", "retired")), None):
        return alive, False
    refuse_while_experimenting(session, endpoint)
    if same:
        row = _propose_again(session, endpoint, same[0], actor=actor)
        if not _was_ready(session, row):  # nobody has had an answer of it: how it was run may have been the mistake
            row.engine, row.config = chosen.model_dump(), options.model_dump()
        return row, True
    if any(row.name == name for row in variants_of(session, endpoint.name)):
        raise conflict(f"{endpoint.name}/{name} is another model", remedy="give the variant another name", given=name)
    row = Variant(
        id=short_id(),
        endpoint=endpoint.name,
        name=name,
        model_digest=model.digest,
        model_ref=str(model),
        engine=chosen.model_dump(),
        config=options.model_dump(),
        state="proposed",
        error=None,
    )
    session.add(row)
    session.flush()
    audit.record(
        session, actor=actor, action="variant.propose", subject=f"{endpoint.name}/{name}", new=describe_variant(row)
    )
    revise(session, endpoint, author=actor, reason=f"variant {name} proposed")
    return row, True


def _propose_again(session: Session, endpoint: Endpoint, row: Variant, *, actor: str) -> Variant:
    _move(session, row, "proposed", action="variant.propose", actor=actor)
    revise(session, endpoint, author=actor, reason=f"variant {row.name} proposed again")
    return row


def _move(session: Session, row: Variant, state: str, *, action: str, actor: str) -> None:
    old = {"state": row.state, "error": row.error}
    row.state, row.error = state, None
    subject = f"{row.endpoint}/{row.name}"
    audit.record(session, actor=actor, action=action, subject=subject, old=old, new={"state": state})


def refuse_while_experimenting(session: Session, endpoint: Endpoint) -> None:
    """Raises Refused while an experiment of the endpoint runs or is paused."""
    if running := live_experiment(session, endpoint.name):
        raise conflict(
            f"experiment {running.id} of endpoint {endpoint.name!r} is {running.state}",
            remedy="stop it first, or propose after it is decided",
        )


def _was_ready(session: Session, row: Variant) -> bool:
    subject = f"{row.endpoint}/{row.name}"
    query = select(Audit.id).where(Audit.subject == subject, Audit.action == "variant.ready").limit(1)
    return session.scalar(query) is not None


def begin_loading(session: Session, *, actor: str) -> None:
    """Marks what a start of the program loads: the proposed variants, and once more the failed ones.

    What made one fail may be repaired since.
    """
    for row in session.scalars(select(Variant).where(Variant.state.in_(("proposed", "failed")))):
        _move(session, row, "loading", action="variant.loading", actor=actor)


def make_first_champion(session: Session, endpoint: Endpoint, variant: Variant, *, actor: str) -> bool:
    """Makes a variant the champion of an endpoint that has none, or one that failed; returns whether it did."""
    before = session.get(Variant, endpoint.champion) if endpoint.champion else None
    if before is not None and (before.state != "failed" or live_experiment(session, endpoint.name)):
        return False
    endpoint.champion = variant.id
    audit.record(
        session,
        actor=actor,
        action="endpoint.champion",
        subject=endpoint.name,
        old={"champion": before.id if before else None},
        new={"champion": variant.id},
    )
    revise(session, endpoint, author=actor, reason=f"champion: {variant.name}")
    return True


def retire_variant(session: Session, endpoint: Endpoint, name: str, *, if_match: str | None, actor: str) -> Variant:
    """Takes a variant out of the routing for good; the champion and those of a live experiment are refused."""
    row = get_variant(session, endpoint.name, name)
    check_revision(endpoint, if_match)
    if row.id == endpoint.champion:
        raise conflict(f"{endpoint.name}/{name} is the champion", remedy="promote another variant first")
    running = live_experiment(session, endpoint.name)
    if running and row.id in (running.control, running.treatment):
        raise conflict(f"{endpoint.name}/{name} is in experiment {running.id}", remedy="stop the experiment first")
    old = {"state": row.state}
    row.state = "retired"
    audit.record(
        session,
        actor=actor,
        action="variant.retire",
        subject=f"{endpoint.name}/{name}",
        old=old,
        new={"state": row.state},
    )
    revise(session, endpoint, author=actor, reason=f"variant {name} retired")
    return row


def revise(session: Session, endpoint: Endpoint, *, author: str, reason: str) -> Revision:
    """Writes the routing as it now is as the next revision, in force in three seconds."""
    session.flush()
    endpoint.revision += 1
    row = Revision(
        endpoint=endpoint.name,
        revision=endpoint.revision,
        routing=_routing(session, endpoint),
        active_at=now() + ACTIVATION,
        author=author,
        reason=reason,
    )
    session.add(row)
    session.flush()
    return row


def _routing(session: Session, endpoint: Endpoint) -> dict[str, Any]:
    running = live_experiment(session, endpoint.name)
    return {
        "task": endpoint.task,
        "champion": endpoint.champion,
        "variants": {row.name: row.id for row in variants_of(session, endpoint.name) if row.state != "retired"},
        "limits": endpoint.limits,
        "experiment": running
        and {
            "id": running.id,
            "salt": running.salt,
            "unit": running.unit,
            "control": running.control,
            "treatment": running.treatment,
            "weights": running.weights,
            "coverage": running.coverage,
            "window_seconds": running.rule["window_seconds"],
            "state": running.state,
        },
    }


def describe_variant(row: Variant) -> dict[str, Any]:
    """Returns a variant as clients read it."""
    return {
        "id": row.id,
        "name": row.name,
        "model": row.model_ref,
        "engine": row.engine,
        "config": row.config,
        "state": row.state,
        "error": row.error,
    }


def describe_endpoint(session: Session, row: Endpoint) -> dict[str, Any]:
    """Returns an endpoint with its variants and live experiment as clients read it."""
    variants = variants_of(session, row.name)
    running = live_experiment(session, row.name)
    latest = session.get(Revision, (row.name, row.revision))
    return {
        "name": row.name,
        "task": row.task,
        "champion": next((variant.name for variant in variants if variant.id == row.champion), None),
        "revision": row.revision,
        "active_at": latest.active_at.isoformat() if latest else None,
        "limits": row.limits,
        "variants": [describe_variant(variant) for variant in variants],
        "experiment": running.id if running else None,
    }


def list_endpoints(session: Session) -> list[Endpoint]:
    """Returns all endpoints by name."""
    return list(session.scalars(select(Endpoint).order_by(Endpoint.name)))


def check_name(what: str, name: str) -> None:
    """Raises SpecError unless a name can stand in a URL, a header and a metric."""
    if not _NAME.fullmatch(name):
        raise SpecError(
            f"{name!r} cannot name a {what}",
            field="name",
            given=name,
            accepted="1 to 63 lower-case letters, digits and hyphens, not a hyphen first",
        )
