"""How often a model rates the answer that people liked better above the other one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from espalier_sdk.columns import OTHER_RATING, RATING
from espalier_sdk.errors import DataError

from espalier_metrics.classification import NoOptions

if TYPE_CHECKING:
    import pyarrow as pa


class PreferenceAccuracy:
    """The share of pairs whose better answer is rated higher than the other; equal ratings are wrong.

    A reward model rates by its number (Ouyang et al. 2022), a language model by the mean log-likelihood of an answer's
    tokens (Meng et al. 2024); 0.5 is what chance would reach.
    """

    contract: ClassVar[int] = 1
    Config: ClassVar[type[NoOptions]] = NoOptions
    greater_is_better: ClassVar[bool] = True
    reports: ClassVar[tuple[str, ...]] = ("preference_accuracy",)

    def __init__(self, config: NoOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float]:
        """Returns 1.0 for a pair in the right order and 0.0 for another."""
        for name in (RATING, OTHER_RATING):
            if name not in predictions.column_names:
                raise DataError(
                    f"the predictions have no column {name!r}: the task holds no second answer",
                    field=name,
                    accepted=", ".join(predictions.column_names),
                    remedy="name the column of the answers that were liked less as `rejected` in the task's config",
                )
        better, other = (predictions.column(name).to_pylist() for name in (RATING, OTHER_RATING))
        return [float(one > two) for one, two in zip(better, other, strict=True)]

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns `preference_accuracy`."""
        found = self.rows(predictions)
        return {"preference_accuracy": sum(found) / len(found)}
