"""Metrics of numbers against scikit-learn and SciPy, and what they say about odd predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from espalier_metrics import R2, MeanAbsoluteError, Spearman
from espalier_metrics.classification import NoOptions
from espalier_sdk.errors import DataError
from espalier_sdk.testing import check_metric
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score


def table(targets: Any, answers: Any) -> pa.Table:
    return pa.table({"target": pa.array(targets, pa.float64()), "prediction": pa.array(answers, pa.float64())})


def some_predictions(rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    targets = rng.gamma(2.0, 3.0, rows).round(1)  # rounded, so that some are equal
    return targets, (0.6 * targets + rng.normal(0, 2, rows)).round(1)


@pytest.mark.parametrize("name", ["mae", "rmse", "r2", "spearman"])
def test_each_metric_passes_its_kit_with_the_values_of_scikit_learn_and_scipy(name: str) -> None:
    targets, answers = some_predictions()
    expected = {
        "mae": mean_absolute_error(targets, answers),
        "rmse": mean_squared_error(targets, answers) ** 0.5,
        "r2": r2_score(targets, answers),
        "spearman": spearmanr(targets, answers).statistic,
    }[name]
    check_metric(name, table(targets, answers), expected={name: float(expected)})


def test_the_mean_explains_nothing_and_a_wrong_order_is_minus_one() -> None:
    assert R2(NoOptions()).values(table([1, 2, 3], [2, 2, 2])) == {"r2": 0.0}
    assert Spearman(NoOptions()).values(table([1, 2, 3], [9, 5, -7])) == {"spearman": pytest.approx(-1.0)}


def test_constant_predictions_have_no_order_and_constant_targets_no_variance() -> None:
    assert Spearman(NoOptions()).values(table([1, 2, 3], [2, 2, 2])) == {"spearman": 0.0}
    assert R2(NoOptions()).values(table([2, 2], [2, 2])) == {"r2": 1.0}
    assert R2(NoOptions()).values(table([2, 2], [2, 3])) == {"r2": 0.0}


def test_rows_without_a_target_are_left_out_and_then_there_is_no_figure_per_row() -> None:
    predictions = table([1.0, None, 3.0], [2.0, 50.0, 3.0])
    assert MeanAbsoluteError(NoOptions()).values(predictions) == {"mae": 0.5}
    assert MeanAbsoluteError(NoOptions()).rows(predictions) is None
    assert MeanAbsoluteError(NoOptions()).rows(table([1.0, 3.0], [2.0, 3.0])) == [1.0, 0.0]


def test_predictions_without_any_target_are_refused() -> None:
    with pytest.raises(DataError, match="no prediction has a target"):
        MeanAbsoluteError(NoOptions()).values(table([None], [1.0]))


def test_labels_are_refused_with_what_is_there() -> None:
    labels = pa.table({"target": ["a"], "prediction": ["a"]})
    with pytest.raises(DataError, match=r"no column 'target' of numbers.*prediction \(string\)"):
        MeanAbsoluteError(NoOptions()).values(labels)
