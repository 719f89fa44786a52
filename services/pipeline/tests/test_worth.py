"""When a reader is told that a baseline would do."""

from __future__ import annotations

from typing import Any

import pytest
from espalier_pipeline.worth import against_baseline


def one(name: str, low: float | None, value: float, high: float | None, seconds: float) -> dict[str, Any]:
    measured = {"value": value, "low": low, "high": high, "error": 0.01}
    return {"name": name, "validation": {"score": measured}, "train_seconds": seconds}


FULL = one("full", 0.80, 0.85, 0.90, 565.0)
MAJORITY = one("majority", 0.1, 0.1, 0.1, 0.001)


def test_a_baseline_whose_interval_reaches_into_the_models_is_named_with_both_costs() -> None:
    near = one("tf-idf-linear", 0.74, 0.78, 0.81, 7.2)
    assert against_baseline(FULL, [MAJORITY, near], "score", greater_is_better=True) == (
        "tf-idf-linear is within the interval of full on validation: 7 s against 565 s of training"
    )


def test_a_baseline_that_is_worse_by_both_intervals_is_not_told() -> None:
    assert against_baseline(FULL, [MAJORITY], "score", greater_is_better=True) is None
    assert against_baseline(FULL, [], "score", greater_is_better=True) is None


def test_a_baseline_beyond_the_models_interval_is_called_better() -> None:
    above = one("tf-idf-linear", 0.91, 0.93, 0.95, 0.2)
    assert against_baseline(FULL, [above], "score", greater_is_better=True) == (
        "tf-idf-linear is better than full on validation: < 1 s against 565 s of training"
    )


@pytest.mark.parametrize(("low", "high", "told"), [(0.89, 0.99, True), (0.92, 0.99, False), (0.1, 0.2, True)])
def test_where_less_is_better_the_lower_end_counts(low: float, high: float, told: bool) -> None:
    ridge = one("tf-idf-ridge", low, (low + high) / 2, high, 1.0)
    assert (against_baseline(FULL, [ridge], "score", greater_is_better=False) is not None) == told


def test_without_intervals_the_values_are_compared() -> None:
    alike = one("tf-idf-linear", None, 0.8, None, 1.0)
    assert against_baseline(FULL, [alike], "score", greater_is_better=True) is not None
    assert against_baseline(FULL, [one("x", None, 0.79, None, 1.0)], "score", greater_is_better=True) is None
