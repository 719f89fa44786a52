"""The metrics of classification with one label or several per row: names of values, and the formulas over counts.

A ratio without a denominator is 0, as scikit-learn's `zero_division=0` has it. Labels are those that are a
target or a prediction of some row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from espalier_sdk.choice import PluginConfig
from espalier_sdk.columns import PREDICTION, TARGET

from espalier_metrics.counts import Counts, codes, counts, has_sets, sets

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class NoOptions(PluginConfig):
    """These metrics have nothing to choose."""


class Accuracy:
    """The share of rows whose prediction is their target; with several labels per row, all of them and no other."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[NoOptions]] = NoOptions
    greater_is_better: ClassVar[bool] = True
    reports: ClassVar[tuple[str, ...]] = ("accuracy",)

    def __init__(self, config: NoOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float]:
        """Returns 1.0 for a right row and 0.0 for a wrong one, in the rows' order.

        A row without a target counts as wrong here, because a paired test needs a figure for every row.
        """
        import pyarrow.compute as pc

        if has_sets(predictions):
            pairs = zip(predictions.column(TARGET).to_pylist(), predictions.column(PREDICTION).to_pylist(), strict=True)
            return [float(wanted is not None and set(wanted) == set(given)) for wanted, given in pairs]
        right = pc.equal(predictions.column(PREDICTION), predictions.column(TARGET))
        values: list[float] = pc.fill_null(right, False).cast("float64").to_pylist()
        return values

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns `accuracy`, and with several labels per row `accuracy/<label>`: who has it and who has not."""
        if has_sets(predictions):
            held = sets(predictions)
            equal = held.targets == held.predictions  # (rows, labels)
            shares = zip(held.labels, equal.mean(axis=0).tolist(), strict=True)
            return {
                "accuracy": float(equal.all(axis=1).mean()),
                **{f"accuracy/{label}": share for label, share in shares},
            }
        coded = codes(predictions)
        return {"accuracy": float((coded.targets == coded.predictions).mean())}


class Precision:
    """Of the rows that were given a label, the share that have it."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[NoOptions]] = NoOptions
    greater_is_better: ClassVar[bool] = True
    reports: ClassVar[tuple[str, ...]] = ("macro_precision", "weighted_precision", "micro_precision")

    def __init__(self, config: NoOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float] | None:
        """Returns None: precision is no mean over rows."""
        return None

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns the averages in `reports`, and `precision/<label>` for each label."""
        seen = counts(predictions)
        return _averages("precision", seen.hits, seen.predicted, seen)


class Recall:
    """Of the rows that have a label, the share that were given it."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[NoOptions]] = NoOptions
    greater_is_better: ClassVar[bool] = True
    reports: ClassVar[tuple[str, ...]] = ("macro_recall", "weighted_recall", "micro_recall")

    def __init__(self, config: NoOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float] | None:
        """Returns None: recall averaged over labels is no mean over rows."""
        return None

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns the averages in `reports`, and `recall/<label>` for each label."""
        seen = counts(predictions)
        return _averages("recall", seen.hits, seen.support, seen)


class F1:
    """The harmonic mean of precision and recall."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[NoOptions]] = NoOptions
    greater_is_better: ClassVar[bool] = True
    reports: ClassVar[tuple[str, ...]] = ("macro_f1", "weighted_f1", "micro_f1")

    def __init__(self, config: NoOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float] | None:
        """Returns None: F1 is no mean over rows."""
        return None

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns the averages in `reports`, and `f1/<label>` for each label."""
        seen = counts(predictions)
        return _averages("f1", 2 * seen.hits, seen.support + seen.predicted, seen)


class ConfusionMatrix:
    """How many rows with one label were given another: `confusion/<target>/<prediction>`.

    A cell without a row is left out. A `/` in a label is written `%2F` and a `%` is written `%25`, so that a
    name can be taken apart again.
    """

    contract: ClassVar[int] = 1
    Config: ClassVar[type[NoOptions]] = NoOptions
    greater_is_better: ClassVar[bool] = True
    reports: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: NoOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float] | None:
        """Returns None: a cell is a count."""
        return None

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns the count of each cell that has a row; none with several labels per row, where there is no cell."""
        if has_sets(predictions):
            return {}
        coded = codes(predictions)
        names = [label.replace("%", "%25").replace("/", "%2F") for label in coded.labels]
        cells = coded.confusion()
        return {
            f"confusion/{names[target]}/{names[answer]}": float(cells[target, answer])
            for target, answer in zip(*(axis.tolist() for axis in cells.nonzero()), strict=True)
        }


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    import numpy as np

    ratio: np.ndarray = np.divide(over, under, out=np.zeros(len(over)), where=under > 0)
    return ratio


def _averages(name: str, over: np.ndarray, under: np.ndarray, seen: Counts) -> dict[str, float]:
    per_label = _ratio(over, under)
    support, whole = int(seen.support.sum()), int(under.sum())
    return {
        f"macro_{name}": float(per_label.mean()) if len(per_label) else 0.0,
        f"weighted_{name}": float((per_label * seen.support).sum() / support) if support else 0.0,
        # With one label per row, a wrong prediction misses one label and invents another: all three are equal.
        f"micro_{name}": float(over.sum() / whole) if whole else 0.0,
        **{f"{name}/{label}": value for label, value in zip(seen.labels, per_label.tolist(), strict=True)},
    }
