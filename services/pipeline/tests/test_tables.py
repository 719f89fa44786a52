"""Tables of candidates: which comes first, by the direction of the metric."""

from __future__ import annotations

from typing import Any

import pytest
from espalier_pipeline import plots
from espalier_pipeline.tables import best_first, candidate_table


def document(**objective: Any) -> dict[str, Any]:
    trained = {"train_seconds": 1.0, "peak_memory_bytes": 1e9, "trainable_parameters": 10, "size_bytes": 10}
    candidates = [
        {"name": name, "validation": {"mae": {"value": value, "low": None}}, "test": None, **trained}
        for name, value in (("far", 3.0), ("near", 1.0), ("between", 2.0))
    ]
    return {"candidates": candidates, "baselines": [], "chosen": "near", "reason": "best", "objective": objective}


@pytest.mark.parametrize(
    ("objective", "first"), [({"greater_is_better": False}, "near"), ({"greater_is_better": True}, "far"), ({}, "far")]
)
def test_the_best_comes_first_whichever_way_the_metric_goes(objective: dict[str, Any], first: str) -> None:
    told = document(**objective)
    assert best_first(told, "mae")[0]["name"] == first
    assert first in candidate_table(told, "mae").splitlines()[1]


def test_a_plot_of_many_numbers_draws_some_of_them() -> None:
    many = [float(place) for place in range(5000)]
    assert plots.numbers(many, many).count("<use") < 1100
    assert plots.numbers([1.0, 2.0], [1.5, 2.5]).startswith("<svg")
