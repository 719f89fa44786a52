"""What a run ends with, and how its objective came out.

Knows nothing about how any of it was made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espalier_runtime.specs import Spec
from espalier_sdk.errors import EspalierError

from espalier_pipeline.choosing import Verdict
from espalier_pipeline.records import RunRecord


@dataclass
class RunResult:
    """What a run ends with; `document()` is what `espalier run --json` prints.

    `refusal` is the error by which the endpoint took no proposal: the models and their comparison stand without it.
    """

    record: RunRecord
    spec: Spec
    stages: list[dict[str, Any]] = field(default_factory=list)
    candidates: list[dict[str, Any]] = field(default_factory=list)
    baselines: list[dict[str, Any]] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)
    forgetting: dict[str, dict[str, Any]] = field(default_factory=dict)  # by candidate that has a base
    tuned: list[dict[str, Any]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    verdict: Verdict | None = None
    against_baseline: str | None = None  # a sentence, where a baseline does as well as the chosen candidate
    openings: int = 0
    report: Path | None = None
    endpoint: dict[str, Any] | None = None
    refusal: EspalierError | None = None

    def document(self) -> dict[str, Any]:
        """Returns the JSON document of the run."""
        return {
            "run": self.record.id,
            "name": self.spec.name,
            "stages": self.stages,
            "data": self.data,
            "tuned": self.tuned,
            "learning_curves": self.curves,
            "candidates": self.candidates,
            "baselines": self.baselines,
            "against_baseline": self.against_baseline,
            "forgetting": self.forgetting,
            "chosen": self.verdict.chosen if self.verdict else None,
            "runner_up": self.verdict.runner_up if self.verdict else None,
            "reason": self.verdict.reason if self.verdict else None,
            "objective": self.objective(),
            "cost": self.spec.objective.cost,
            "test_openings": self.openings,
            "report": str(self.report) if self.report else None,
            "endpoint": self.endpoint,
            "errors": [problem.to_json() for problem in self.refusal.problems] if self.refusal else [],
        }

    def objective(self) -> dict[str, Any] | None:
        """Returns the objective's metric, limits, value (test where it was opened) and whether they are met."""
        if self.verdict is None:
            return None
        goal, chosen = self.spec.objective, next(one for one in self.candidates if one["name"] == self.verdict.chosen)
        split = "test" if chosen["test"] else "validation"
        value = chosen[split][goal.metric]["value"]
        met = (goal.at_least is None or value >= goal.at_least) and (goal.at_most is None or value <= goal.at_most)
        return {
            "metric": goal.metric,
            "at_least": goal.at_least,
            "at_most": goal.at_most,
            "value": value,
            "split": split,
            "met": met,
        }
