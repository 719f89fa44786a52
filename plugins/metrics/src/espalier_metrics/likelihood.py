"""Metrics of a language model: how likely held-out text is to it. Read from sums per row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from espalier_sdk.choice import PluginConfig
from espalier_sdk.columns import NLL, RIGHT_TOKENS, SCORED_BYTES, SCORED_TOKENS
from espalier_sdk.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


class LikelihoodOptions(PluginConfig):
    """These metrics have nothing to choose."""


class Perplexity:
    """The inverse of the geometric mean of the probabilities of all tokens (Jelinek et al. 1977).

    It depends on the tokenizer: between models that cut text in other ways, `bits_per_byte` compares. Of masked
    tokens it is the pseudo-perplexity (Salazar et al. 2020), with a share masked at once instead of each alone.
    """

    contract: ClassVar[int] = 1
    Config: ClassVar[type[LikelihoodOptions]] = LikelihoodOptions
    greater_is_better: ClassVar[bool] = False
    reports: ClassVar[tuple[str, ...]] = ("perplexity",)

    def __init__(self, config: LikelihoodOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float] | None:
        """Returns None: perplexity is no mean over rows."""
        return None

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns `perplexity`."""
        nats = _total(predictions, NLL) / _total(predictions, SCORED_TOKENS)
        return {"perplexity": math.exp(min(nats, 700.0))}


class BitsPerByte:
    """How many bits the model needs for a byte of UTF-8 text, the end of each text included."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[LikelihoodOptions]] = LikelihoodOptions
    greater_is_better: ClassVar[bool] = False
    reports: ClassVar[tuple[str, ...]] = ("bits_per_byte",)

    def __init__(self, config: LikelihoodOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float] | None:
        """Returns None: bits per byte are no mean over rows, because rows differ in length."""
        return None

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns `bits_per_byte`."""
        return {"bits_per_byte": _total(predictions, NLL) / math.log(2) / _total(predictions, SCORED_BYTES)}


class MaskedAccuracy:
    """The share of masked tokens of which the likeliest token is the one that was there.

    It depends on the tokenizer: a text cut into shorter pieces is easier to guess.
    """

    contract: ClassVar[int] = 1
    Config: ClassVar[type[LikelihoodOptions]] = LikelihoodOptions
    greater_is_better: ClassVar[bool] = True
    reports: ClassVar[tuple[str, ...]] = ("masked_accuracy",)

    def __init__(self, config: LikelihoodOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float] | None:
        """Returns None: it is no mean over rows, because rows differ in length."""
        return None

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns `masked_accuracy`."""
        return {"masked_accuracy": _total(predictions, RIGHT_TOKENS) / _total(predictions, SCORED_TOKENS)}


def _total(predictions: pa.Table, name: str) -> float:
    """Returns a column's sum, which must be above zero where it is divided by."""
    if name not in predictions.column_names:
        raise DataError(
            f"the predictions have no column {name!r}",
            field=name,
            accepted=", ".join(predictions.column_names),
            remedy="measure a task that writes text or fills gaps in it, on rows that give the text or the answer",
        )
    # Summed exactly: the order of the rows must not show in the last digit.
    total = math.fsum(value for value in predictions.column(name).to_pylist() if value is not None)
    if name in (SCORED_TOKENS, SCORED_BYTES) and total <= 0:
        raise DataError("nothing was scored: no row holds a text or an answer", field=name)
    return total
