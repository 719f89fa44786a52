"""Learning curves: a candidate on shares of its train split, measured on validation, and what more data would do.

Knows nothing about how models are made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

from espalier_runtime import request as requests
from espalier_runtime.plugins import Plugins
from espalier_runtime.specs import Spec
from espalier_runtime.specs.checking import objective_metric_is_greater_better
from espalier_runtime.specs.space import by_share, with_candidate
from espalier_runtime.specs.writing import write_spec
from espalier_sdk import ArtifactRef

from espalier_pipeline.evaluating import evaluate_all, request
from espalier_pipeline.staging import Stages
from espalier_pipeline.studies import describe


def learning_curve(
    spec: Spec, name: str, inputs: Mapping[str, ArtifactRef], stages: Stages, plugins: Plugins
) -> dict[str, Any]:
    """Returns candidate, metric, what it says, and a point per share: share, examples, value, low, high, error, model.

    `spec` has the candidate as it was trained, `inputs` what it was trained from.
    """
    derived = with_candidate(spec, name, by_share(spec.candidates[name]))
    path = stages.record.folder / f"spec-{name}-by-share.yaml"
    write_spec(derived, path)
    study = stages.make(requests.tune_request(derived, name, inputs, plugins), spec=path, label=label(name))
    found = [one for one in describe(stages.store, name, study)["trials"] if one["state"] == "complete"]
    found.sort(key=lambda one: one["values"]["training.train_share"])
    asked = [
        replace(
            request(spec, plugins, "validation", dataset=inputs["dataset"], name=name, model=ArtifactRef.parse(model)),
            name=f"{name}-{one['values']['training.train_share']:g}-validation",
        )
        for one in found
        for model in one["models"]
    ]
    metric, points = spec.objective.metric, []
    for one, measured in zip(found, evaluate_all(asked, stages), strict=True):
        model = one["models"][0]
        examples = stages.metrics(ArtifactRef.parse(model))["examples"]
        share = one["values"]["training.train_share"]
        points.append({"share": share, "examples": examples, "model": model, **measured["values"][metric]})
    greater = objective_metric_is_greater_better(spec, plugins)
    said = conclusion(points, metric, greater_is_better=greater, confidence=spec.evaluate.confidence)
    return {"candidate": name, "metric": metric, "study": str(study), "points": points, "said": said}


def label(name: str) -> str:
    """Returns what the study of a candidate's learning curve is called."""
    return f"{name} by share of the data"


def conclusion(
    points: Sequence[Mapping[str, Any]], metric: str, *, greater_is_better: bool, confidence: float
) -> str | None:
    """Returns whether the last rows that were added helped, as far as these validation rows can tell; None without two.

    The interval of the difference takes both models' errors as independent. They answer the same rows, so that is
    too wide if anything.
    """
    if len(points) < 2 or any(one["error"] is None for one in points[-2:]):
        return None
    before, last = points[-2:]
    gain = (last["value"] - before["value"]) * (1.0 if greater_is_better else -1.0)
    width = NormalDist().inv_cdf(0.5 + confidence / 2) * math.hypot(before["error"], last["error"])
    told = (
        f"From {before['examples']} to {last['examples']} examples {metric} went from {before['value']:.3g} to "
        f"{last['value']:.3g}, better by {gain:.3f} ({gain - width:.3f} to {gain + width:.3f})"
    )
    if gain > width:
        return f"{told}: more data of this kind would likely help."
    if gain < -width:
        return f"{told}: more data made it worse; look at what the added rows are, or train longer."
    return (
        f"{told}: too little to tell from chance on these validation rows. More of them would tell; more data may not."
    )
