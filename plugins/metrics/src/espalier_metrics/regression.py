"""How near numbers are to their targets: mae, rmse, r2 and spearman.

Rows without a target are left out. The values are those of scikit-learn and SciPy, which the tests compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from espalier_sdk.columns import PREDICTION, TARGET
from espalier_sdk.errors import DataError

from espalier_metrics.classification import NoOptions

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class MeanAbsoluteError:
    """The mean distance of prediction and target, in the target's unit."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[NoOptions]] = NoOptions
    greater_is_better: ClassVar[bool] = False
    reports: ClassVar[tuple[str, ...]] = ("mae",)

    def __init__(self, config: NoOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float] | None:
        """Returns each row's distance, in the rows' order; None where a row has no target, and so no distance."""
        targets, answers = _pairs(predictions)
        distances: list[float] = abs(targets - answers).tolist()
        return distances if len(distances) == predictions.num_rows else None

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns `mae`."""
        targets, answers = _pairs(predictions)
        return {"mae": float(abs(targets - answers).mean())}


class RootMeanSquaredError:
    """The root of the mean squared distance, in the target's unit: one row far off weighs more than in `mae`."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[NoOptions]] = NoOptions
    greater_is_better: ClassVar[bool] = False
    reports: ClassVar[tuple[str, ...]] = ("rmse",)

    def __init__(self, config: NoOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float] | None:
        """Returns None: the root of a mean is no mean over rows."""
        return None

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns `rmse`."""
        targets, answers = _pairs(predictions)
        return {"rmse": float(((targets - answers) ** 2).mean() ** 0.5)}


class R2:
    """The share of the target's variance that is explained; 0 is what its mean would reach, and less is worse."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[NoOptions]] = NoOptions
    greater_is_better: ClassVar[bool] = True
    reports: ClassVar[tuple[str, ...]] = ("r2",)

    def __init__(self, config: NoOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float] | None:
        """Returns None: a share of the variance is no mean over rows."""
        return None

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns `r2`; where all targets are one number 1 if each is met, else 0, as scikit-learn has it."""
        targets, answers = _pairs(predictions)
        left = float(((targets - answers) ** 2).sum())
        whole = float(((targets - targets.mean()) ** 2).sum())
        if not whole:
            return {"r2": float(not left)}
        return {"r2": 1.0 - left / whole}


class Spearman:
    """The correlation of ranks (Spearman 1904): whether the order is right, whatever the numbers are."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[NoOptions]] = NoOptions
    greater_is_better: ClassVar[bool] = True
    reports: ClassVar[tuple[str, ...]] = ("spearman",)

    def __init__(self, config: NoOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float] | None:
        """Returns None: a correlation is no mean over rows."""
        return None

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns `spearman`, equal numbers sharing their mean rank; 0 where one side is constant, and has no order."""
        targets, answers = (_ranks(values) for values in _pairs(predictions))
        targets, answers = targets - targets.mean(), answers - answers.mean()
        scale = float((targets**2).sum() * (answers**2).sum()) ** 0.5
        return {"spearman": float((targets * answers).sum()) / scale if scale else 0.0}


def _ranks(values: np.ndarray) -> np.ndarray:
    import numpy as np

    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: np.ndarray = (last - (counts - 1) / 2)[places]
    return ranks


def _pairs(predictions: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Returns targets and predictions of the rows that have a target; DataError where there is none."""
    import numpy as np

    targets, answers = (_numbers(predictions, name) for name in (TARGET, PREDICTION))
    known = ~np.isnan(targets)
    if not known.any():
        raise DataError(
            "no prediction has a target, so nothing can be measured",
            field=TARGET,
            remedy="evaluate on a split whose rows have a target",
        )
    return targets[known], answers[known]


def _numbers(predictions: pa.Table, name: str) -> np.ndarray:
    import pyarrow as pa

    column = predictions.column(name) if name in predictions.column_names else None
    if column is None or not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise DataError(
            f"the predictions have no column {name!r} of numbers",
            field=name,
            accepted=", ".join(f"{field.name} ({field.type})" for field in predictions.schema),
            remedy="measure with this metric what a regression task has decoded",
        )
    values: np.ndarray = column.cast(pa.float64()).to_numpy()
    return values
