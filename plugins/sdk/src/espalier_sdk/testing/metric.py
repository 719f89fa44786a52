"""The kit for metrics: values that are numbers, keep their promise, and depend on nothing but the predictions."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from espalier_sdk.testing.plugin import check_plugin

if TYPE_CHECKING:
    import pyarrow as pa


def check_metric(
    name: str,
    predictions: pa.Table,
    *,
    expected: Mapping[str, float],
    config: Mapping[str, Any] | None = None,
    tolerance: float = 1e-9,
) -> None:
    """Checks a metric on predictions whose values are known from elsewhere (by hand, or from a reference library).

    All that it `reports` is there; each value is a finite number; the values are those expected; they do not
    depend on the order of the rows or on how the table is cut into chunks; asking twice gives the same and
    changes nothing; `rows` has a figure per row whose mean is one of the values.
    """
    plugin = check_plugin("espalier.metrics", name)
    metric = plugin(plugin.Config.model_validate(dict(config or {})))
    assert predictions.num_rows > 1 and expected, f"{name}: the kit needs rows and expected values"
    before = pickle.dumps(predictions.to_pydict())
    values = dict(metric.values(predictions))
    assert pickle.dumps(predictions.to_pydict()) == before, f"{name}: values() changed the predictions"
    missing = [key for key in plugin.reports if key not in values]
    assert not missing, f"{name}: reports {', '.join(missing)}, but values() leaves that out"
    for key, value in values.items():
        assert type(value) is float and math.isfinite(value), f"{name}: {key} is {value!r}, must be a finite float"
    _check_equal(name, values, expected, tolerance, "expected")
    assert dict(metric.values(predictions)) == values, f"{name}: asking twice gives two answers"
    _check_invariance(name, metric, predictions, values, tolerance)
    _check_rows(name, metric, predictions, values, tolerance)


def _check_equal(
    name: str, values: Mapping[str, float], wanted: Mapping[str, float], tolerance: float, why: str
) -> None:
    for key, value in wanted.items():
        assert key in values, f"{name}: {key} is missing from values()"
        assert math.isclose(values[key], value, rel_tol=tolerance, abs_tol=tolerance), (
            f"{name}: {key} is {values[key]}, {why} {value}"
        )


def _check_invariance(
    name: str, metric: Any, predictions: pa.Table, values: Mapping[str, float], tolerance: float
) -> None:
    import pyarrow as pa

    backwards = predictions.take(list(range(predictions.num_rows - 1, -1, -1)))
    _check_equal(name, dict(metric.values(backwards)), values, tolerance, "in another order of rows")
    cut = pa.concat_tables([predictions.slice(0, 1), predictions.slice(1)])
    _check_equal(name, dict(metric.values(cut)), values, tolerance, "in one chunk")


def _check_rows(name: str, metric: Any, predictions: pa.Table, values: Mapping[str, float], tolerance: float) -> None:
    rows = metric.rows(predictions)
    if rows is None:
        return
    assert len(rows) == predictions.num_rows, f"{name}: rows() has {len(rows)} figures for {predictions.num_rows} rows"
    mean = sum(rows) / len(rows)
    assert any(math.isclose(mean, value, rel_tol=tolerance, abs_tol=tolerance) for value in values.values()), (
        f"{name}: the mean of rows() is {mean}, which is none of the values"
    )
