"""What an experiment has seen: counts per arm, and the mean over units of each metric.

A unit's figure is the mean of its own outcomes, so that a unit with many outcomes weighs as much as one with few.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session, aliased

from espalier_serving.tables import Completion, Experiment, Exposure, Outcome, Unit, Variant


def results_of(session: Session, experiment: Experiment) -> dict[str, Any]:
    """Returns counts and means per arm; crossed units and late or superseded outcomes are left out of the means."""
    arms = {"control": experiment.control, "treatment": experiment.treatment}
    requests = _requests(session, experiment.id)
    units = _units(session, experiment.id)
    metrics = _metrics(session, experiment.id)
    return {
        "experiment": experiment.id,
        "state": experiment.state,
        "arms": {
            arm: {
                "variant": session.get_one(Variant, variant).name,
                "units": units.get(variant, (0, 0))[0],
                "crossed": units.get(variant, (0, 0))[1],
                **requests.get(variant, {"requests": 0, "answered": 0, "not_served": 0}),
                "metrics": metrics.get(variant, {}),
            }
            for arm, variant in arms.items()
        },
    }


def _requests(session: Session, experiment: str) -> dict[str, dict[str, int]]:
    served = case((Completion.served == Exposure.assigned, 1), else_=0)
    query = (
        select(Exposure.assigned, func.count(), func.count(Completion.request_id), func.sum(served))
        .outerjoin(Completion, Completion.request_id == Exposure.request_id)
        .where(Exposure.experiment == experiment)
        .group_by(Exposure.assigned)
    )
    return {
        variant: {"requests": total, "answered": int(mine or 0), "not_served": completed - int(mine or 0)}
        for variant, total, completed, mine in session.execute(query)
    }


def _units(session: Session, experiment: str) -> dict[str, tuple[int, int]]:
    crossed = func.sum(case((Unit.crossed, 1), else_=0))
    query = select(Unit.arm, func.count(), crossed).where(Unit.experiment == experiment).group_by(Unit.arm)
    return {arm: (total, int(both or 0)) for arm, total, both in session.execute(query)}


def _metrics(session: Session, experiment: str) -> dict[str, dict[str, dict[str, float]]]:
    newer = aliased(Outcome)
    # By what is in time and newest, not by `supersedes`: two gateways may have superseded one outcome at one moment.
    replaced = (
        select(newer.id)
        .where(newer.request_id == Outcome.request_id, newer.metric == Outcome.metric, ~newer.late)
        .where(newer.id > Outcome.id)
        .exists()
    )
    query = (
        select(Unit.arm, Outcome.metric, func.avg(Outcome.value))
        .join(Unit, (Unit.experiment == Outcome.experiment) & (Unit.unit_hash == Outcome.unit_hash))
        .where(Outcome.experiment == experiment, ~Outcome.late, ~Unit.crossed, ~replaced)
        .group_by(Unit.arm, Outcome.metric, Unit.unit_hash)
    )
    means: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for arm, metric, mean in session.execute(query):
        means[arm, metric].append(mean)
    found: defaultdict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for (arm, metric), values in sorted(means.items()):
        found[arm][metric] = {"units": len(values), "mean": sum(values) / len(values)}
    return dict(found)
