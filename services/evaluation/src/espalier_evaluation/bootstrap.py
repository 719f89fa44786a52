"""Bootstrap intervals: each metric again on resampled rows (Efron and Tibshirani 1993, percentile method).

Knows nothing about what is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from espalier_sdk.columns import RESERVED_PREFIX


@dataclass(frozen=True, slots=True)
class Measured:
    """A value with its percentile interval and its standard error; counts have neither."""

    value: float
    low: float | None
    high: float | None
    error: float | None


def measure(
    predictions: pa.Table, metrics: Mapping[str, Any], *, resamples: int, confidence: float, seed: int
) -> dict[str, Measured]:
    """Returns every value of every metric; all metrics see the same resamples, so that they can be compared."""
    values = {name: dict(metric.values(predictions)) for name, metric in metrics.items()}
    estimates = {name: metric for name, metric in metrics.items() if metric.reports}  # counts get no interval
    again: dict[str, list[Mapping[str, float]]] = {name: [] for name in estimates}
    for sample in _resamples(predictions, resamples, seed):
        for name, metric in estimates.items():
            again[name].append(metric.values(sample))
    found: dict[str, Measured] = {}
    for metric_name, named in values.items():
        for name, value in named.items():
            drawn = [one.get(name, np.nan) for one in again.get(metric_name, ())]
            found[name] = _interval(float(value), np.array(drawn), confidence)
    return found


def _resamples(predictions: pa.Table, count: int, seed: int) -> Iterator[pa.Table]:
    """Yields tables of as many rows, drawn with replacement; one at a time, because a thousand may not fit memory."""
    generator = np.random.default_rng(seed)
    rows = predictions.num_rows
    for_readers = [name for name in predictions.column_names if name.startswith(RESERVED_PREFIX)]
    slim = predictions.drop_columns(for_readers).combine_chunks()
    for _ in range(count):
        yield slim.take(pa.array(generator.integers(0, rows, rows)))


def _interval(value: float, again: np.ndarray, confidence: float) -> Measured:
    again = again[np.isfinite(again)]  # a resample may miss a class altogether
    if len(again) < 2:
        return Measured(value, None, None, None)
    tail = (1 - confidence) / 2
    low, high = np.quantile(again, [tail, 1 - tail])
    return Measured(value, float(low), float(high), float(np.std(again, ddof=1)))
