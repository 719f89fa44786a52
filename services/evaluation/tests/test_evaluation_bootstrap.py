"""Bootstrap intervals against the normal approximation, and what resamples do to metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest
from espalier_evaluation.bootstrap import Measured, measure
from espalier_runtime.plugins import Plugins
from espalier_sdk import Choice


def metric(name: str) -> Any:
    return Plugins().load("espalier.metrics", Choice(name=name))


def table(right: int, wrong: int) -> pa.Table:
    count = right + wrong
    return pa.table({"target": ["a"] * count, "prediction": ["a"] * right + ["b"] * wrong})


def measured(predictions: pa.Table, *names: str, **options: Any) -> dict[str, Measured]:
    settings = {"resamples": 1000, "confidence": 0.95, "seed": 0} | options
    return measure(predictions, {name: metric(name) for name in names}, **settings)


def test_the_interval_of_accuracy_is_that_of_a_binomial_share() -> None:
    """The normal approximation for 320 of 400: p = 0.8, standard error sqrt(p (1 - p) / n) = 0.02."""
    found = measured(table(320, 80), "accuracy", resamples=2000)["accuracy"]
    error = math.sqrt(0.8 * 0.2 / 400)
    assert found.value == 0.8
    assert found.error == pytest.approx(error, rel=0.05)  # a standard error from 2,000 draws is good to about 1.6 %
    assert found.low == pytest.approx(0.8 - 1.96 * error, abs=0.004)
    assert found.high == pytest.approx(0.8 + 1.96 * error, abs=0.004)


def test_a_higher_confidence_gives_a_wider_interval_around_the_same_value() -> None:
    narrow, wide = (measured(table(320, 80), "accuracy", confidence=one)["accuracy"] for one in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.value == wide.value < narrow.high < wide.high
    assert narrow.error == wide.error


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    one, same, other = (measured(table(320, 80), "accuracy", seed=seed) for seed in (3, 3, 4))
    assert one == same
    assert one["accuracy"].error != other["accuracy"].error


def test_counts_get_no_interval() -> None:
    found = measured(table(3, 1), "confusion-matrix", "accuracy")
    assert found["confusion/a/a"] == Measured(3.0, None, None, None)
    assert found["accuracy"].low is not None


class Recorder:
    """A metric that keeps what it was shown."""

    reports = ("first",)

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        self.seen.append(predictions.column("prediction").to_pylist())
        return {"first": 1.0}


def test_all_metrics_see_the_same_resamples_of_as_many_rows() -> None:
    predictions = pa.table({"target": list("abcdefgh"), "prediction": list("abcdefgh")})
    one, two = Recorder(), Recorder()
    measure(predictions, {"one": one, "two": two}, resamples=20, confidence=0.95, seed=0)
    assert one.seen == two.seen
    assert one.seen[0] == list("abcdefgh")
    assert len(one.seen) == 21
    assert {len(sample) for sample in one.seen} == {8}
    assert len({tuple(sample) for sample in one.seen}) > 15


def test_a_metric_measured_alone_has_the_interval_that_it_has_among_others() -> None:
    predictions = table(30, 10)
    assert measured(predictions, "f1", "accuracy")["accuracy"] == measured(predictions, "accuracy")["accuracy"]


def test_resamples_that_miss_a_class_leave_its_value_out_and_no_other() -> None:
    """One row of 40 is of class `rare`: a resample misses it with probability (39/40)^40 = 0.36."""
    predictions = pa.table({"target": ["often"] * 39 + ["rare"], "prediction": ["often"] * 39 + ["rare"]})
    found = measured(predictions, "recall", "accuracy")
    assert found["recall/rare"] == Measured(1.0, 1.0, 1.0, 0.0)
    assert found["accuracy"] == Measured(1.0, 1.0, 1.0, 0.0)
    assert all(math.isfinite(one.error) for one in found.values() if one.error is not None)


class Once:
    """A metric with a value that no resample has."""

    reports = ("always",)

    def __init__(self) -> None:
        self.calls = 0

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        self.calls += 1
        return {"always": float(self.calls)} | ({"whole": 0.5} if self.calls == 1 else {"nothing": math.nan})


def test_a_value_that_no_resample_has_stands_without_an_interval() -> None:
    found = measure(table(3, 1), {"once": Once()}, resamples=100, confidence=0.95, seed=0)
    assert found["whole"] == Measured(0.5, None, None, None)
    assert found["always"].low is not None
    assert "nothing" not in found


def test_chunks_and_columns_that_no_metric_reads_make_no_difference() -> None:
    whole = table(30, 10).append_column("espalier_id", pa.array(range(40)))
    cut = pa.concat_tables([whole.slice(0, 7), whole.slice(7)])
    assert measured(cut, "f1") == measured(whole.select(["target", "prediction"]), "f1")


def test_a_metric_reads_whatever_column_a_task_makes() -> None:
    """Of 40 rows of 10 words each, half are all right and half all wrong: the share is that of a binomial of 40."""
    sums = {"scored_tokens": [10] * 40, "right_tokens": [10] * 20 + [0] * 20, "nll": [1.0] * 40}
    found = measured(pa.table(sums), "masked-accuracy")["masked_accuracy"]
    assert found.value == 0.5
    assert found.error == pytest.approx(math.sqrt(0.5 * 0.5 / 40), rel=0.1)
