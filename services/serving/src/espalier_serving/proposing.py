"""Proposing models to an endpoint, with or without a server: what the serve stage and the command line do.

The champion is whatever is live; `bootstrap` is for an endpoint that has none, or one whose model does not open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from espalier_sdk.artifacts import ArtifactRef
from espalier_sdk.errors import SpecError
from sqlalchemy.orm import Session

from espalier_serving.database import open_database
from espalier_serving.endpoints import (
    add_variant,
    create_endpoint,
    live_experiment,
    make_first_champion,
    variants_of,
)
from espalier_serving.experiments import create_experiment, drafts_of, list_experiments, stop_experiment
from espalier_serving.limits import Limits
from espalier_serving.refusals import conflict
from espalier_serving.tables import Endpoint, Experiment, Variant

PIPELINE = "pipeline"  # who proposes, in the audit log
SUPERSEDED = "superseded"

Proposal = tuple[str, str, dict[str, Any] | str, dict[str, Any]]  # name, model ref, engine choice, variant config


def propose(
    database_url: str,
    *,
    endpoint: str,
    task: str,
    variants: Sequence[Proposal],
    bootstrap: str,
    experiment: Mapping[str, Any] | None = None,
    actor: str = PIPELINE,
) -> dict[str, Any]:
    """Records models as variants of an endpoint, and a draft experiment between champion and challenger.

    Returns endpoint, champion, revision, `variants` (the given name to the variant's), `experiment` (id or None) and
    `changed`. A model that is a variant already changes nothing; while an experiment runs another model is Refused.
    `experiment` has weights, coverage, unit, control, treatment: the control is always the live champion, and the
    treatment the given one, or the given control where that one is the champion.
    """
    database = open_database(database_url)
    try:
        with database.writing() as session:
            return _propose(session, endpoint, task, variants, bootstrap, experiment, actor)
    finally:
        database.close()


def _propose(
    session: Session,
    endpoint: str,
    task: str,
    variants: Sequence[Proposal],
    bootstrap: str,
    experiment: Mapping[str, Any] | None,
    actor: str,
) -> dict[str, Any]:
    names = [name for name, *_ in variants]
    if bootstrap not in names:
        raise SpecError("bootstrap names no variant", field="bootstrap", given=bootstrap, accepted=", ".join(names))
    row = session.get(Endpoint, endpoint, with_for_update=True)
    before = row.revision if row else 0
    row = row or create_endpoint(session, endpoint, task=task, limits=Limits(), actor=actor)
    if row.task != task:
        raise conflict(f"endpoint {endpoint!r} answers {row.task}, not {task}", remedy="serve to another endpoint")
    chosen = {
        name: _variant(session, row, proposal, actor) for (name, *_), proposal in zip(variants, variants, strict=True)
    }
    make_first_champion(session, row, chosen[bootstrap], actor=actor)
    draft, made = _draft(session, row, chosen, experiment, actor) if experiment else (None, False)
    return {
        "endpoint": endpoint,
        "champion": session.get_one(Variant, row.champion).name,
        "revision": row.revision,
        "variants": {name: variant.name for name, variant in chosen.items()},
        "experiment": draft.id if draft else None,
        "changed": row.revision != before or made,
    }


def _variant(session: Session, endpoint: Endpoint, proposal: Proposal, actor: str) -> Variant:
    name, ref, engine, config = proposal
    try:
        model = ArtifactRef.parse(ref)
    except ValueError as error:
        raise SpecError(str(error), field=f"variants.{name}", given=ref) from error
    taken = {row.name for row in variants_of(session, endpoint.name) if row.model_digest != model.digest}
    free = name if name not in taken else f"{name}-{model.digest[:8]}"
    return add_variant(session, endpoint, name=free, model=model, engine=engine, config=config, actor=actor)[0]


def _draft(
    session: Session,
    endpoint: Endpoint,
    chosen: Mapping[str, Variant],
    experiment: Mapping[str, Any],
    actor: str,
) -> tuple[Experiment | None, bool]:
    roles = (experiment["treatment"], experiment["control"])
    if unknown := [name for name in roles if name not in chosen]:
        raise SpecError(
            "the experiment names no variant", field="experiment", given=unknown[0], accepted=", ".join(chosen)
        )
    treatment = next((chosen[name] for name in roles if chosen[name].id != endpoint.champion), None)
    if treatment is None:
        return None, False
    wanted = (treatment.id, list(experiment["weights"]), float(experiment["coverage"]), experiment["unit"])
    # A decided one counts too: running the same pipeline again must not start what an operator has stopped.
    for row in reversed(list_experiments(session, endpoint.name)):
        same = row.control == endpoint.champion and (row.treatment, row.weights, row.coverage, row.unit) == wanted
        if same and row.verdict != SUPERSEDED:
            return row, False
    if running := live_experiment(session, endpoint.name):
        raise conflict(
            f"experiment {running.id} of endpoint {endpoint.name!r} is {running.state}",
            remedy="stop it first, or propose after it is decided",
        )
    for older in drafts_of(session, endpoint.name, actor=actor):
        # Of two drafts only one could run, and the older one is no longer what its pipeline proposes.
        stop_experiment(session, older.id, if_match="*", actor=actor, verdict=SUPERSEDED)
    made = create_experiment(
        session,
        endpoint,
        treatment=treatment,
        weights=experiment["weights"],
        coverage=experiment["coverage"],
        unit=experiment["unit"],
        actor=actor,
    )
    return made, True
