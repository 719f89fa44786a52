"""What the program says of its endpoints: champion, challenger and weights, and what else is served."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from espalier_serving.database import Database
from espalier_serving.endpoints import list_endpoints, live_experiment, variants_of
from espalier_serving.experiments import drafts_of
from espalier_serving.proposing import PIPELINE
from espalier_serving.tables import Endpoint, Variant


def described(database: Database) -> list[dict[str, Any]]:
    """Returns name, task, champion, variants, experiment and the champion's error of each endpoint.

    `experiment` is the live one, else the newest that a pipeline drafted: state, treatment, weights (the champion's
    first), coverage; None where there is none.
    """
    with database.reading() as session:
        return [_described(session, row) for row in list_endpoints(session)]


def sentence(one: dict[str, Any]) -> str:
    """Returns an endpoint's line."""
    experiment = one["experiment"]
    if experiment is None:
        told, named = f"champion {one['champion'] or '-'}", {one["champion"]}
    else:
        champion, challenger = experiment["weights"]
        state = {"draft": "not started yet"}.get(experiment["state"], experiment["state"])
        told = f"champion {one['champion']} ({champion}), challenger {experiment['treatment']} ({challenger}), "
        told += f"experiment of {experiment['coverage']:.0%} of the units {state}"
        named = {one["champion"], experiment["treatment"]}
    others = [name for name in one["variants"] if name not in named]
    return f"{one['name']}  {told}" + (f"; also served: {', '.join(others)}" if others else "")


def _described(session: Session, row: Endpoint) -> dict[str, Any]:
    variants = [one for one in variants_of(session, row.name) if one.state != "retired"]
    champion = next((one for one in variants if one.id == row.champion), None)
    return {
        "name": row.name,
        "task": row.task,
        "champion": champion.name if champion else None,
        "variants": [one.name for one in variants],
        "experiment": _experiment(session, row),
        "error": champion.error if champion and champion.state == "failed" else None,
    }


def _experiment(session: Session, row: Endpoint) -> dict[str, Any] | None:
    drafts = [one for one in drafts_of(session, row.name, actor=PIPELINE) if one.control == row.champion]
    found = live_experiment(session, row.name) or (drafts[-1] if drafts else None)
    if found is None:
        return None
    treatment = session.get_one(Variant, found.treatment).name
    return {
        "state": found.state,
        "treatment": treatment,
        "weights": list(found.weights),
        "coverage": found.coverage,
    }
