"""Metrics of written answers against the answers that were wanted: exact match, words in common, n-grams."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from espalier_sdk.choice import PluginConfig
from espalier_sdk.columns import PREDICTION, TARGET
from espalier_sdk.errors import DataError

from espalier_metrics.overlap import chrf_counts, chrf_score, f1_of_words, is_equal, rouge_scores

if TYPE_CHECKING:
    import pyarrow as pa


class TextOptions(PluginConfig):
    """These metrics have nothing to choose."""


class ExactMatch:
    """The share of answers that are the wanted ones, but for case, punctuation, articles and spaces (SQuAD)."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[TextOptions]] = TextOptions
    greater_is_better: ClassVar[bool] = True
    reports: ClassVar[tuple[str, ...]] = ("exact_match",)

    def __init__(self, config: TextOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float]:
        """Returns 1.0 for a right row and 0.0 for a wrong one; a row without a target is wrong."""
        return _rows(predictions, is_equal)

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns `exact_match`."""
        return {"exact_match": _mean([is_equal(*pair) for pair in _pairs(predictions)])}


class TokenF1:
    """The harmonic mean of the shares of words that answer and wanted answer have in common (SQuAD)."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[TextOptions]] = TextOptions
    greater_is_better: ClassVar[bool] = True
    reports: ClassVar[tuple[str, ...]] = ("token_f1",)

    def __init__(self, config: TextOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float]:
        """Returns the F1 of each row; 0 for a row without a target."""
        return _rows(predictions, f1_of_words)

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns `token_f1`."""
        return {"token_f1": _mean([f1_of_words(*pair) for pair in _pairs(predictions)])}


class Rouge:
    """F1 of words, of pairs of words, and of the longest common subsequence of words (Lin 2004), without stemming."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[TextOptions]] = TextOptions
    greater_is_better: ClassVar[bool] = True
    reports: ClassVar[tuple[str, ...]] = ("rouge1", "rouge2", "rougeL")

    def __init__(self, config: TextOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float]:
        """Returns ROUGE-L of each row; 0 for a row without a target."""
        return _rows(predictions, lambda answer, target: rouge_scores(answer, target)[2])

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns the means over rows."""
        scores = [rouge_scores(*pair) for pair in _pairs(predictions)]
        return {name: _mean([one[place] for one in scores]) for place, name in enumerate(self.reports)}


class Chrf:
    """The F2 of character n-grams, up to six, over all rows together (Popović 2015), from 0 to 100."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[TextOptions]] = TextOptions
    greater_is_better: ClassVar[bool] = True
    reports: ClassVar[tuple[str, ...]] = ("chrf",)

    def __init__(self, config: TextOptions) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float] | None:
        """Returns None: n-grams are counted over all rows, so it is no mean over rows."""
        return None

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns `chrf`."""
        counted = [chrf_counts(*pair) for pair in _pairs(predictions)]
        return {"chrf": chrf_score([sum(column) for column in zip(*counted, strict=True)])}


def _pairs(predictions: pa.Table) -> list[tuple[str, str]]:
    """Returns answer and wanted answer of each row that has the latter; DataError where none has."""
    answers, targets = _texts(predictions, PREDICTION), _texts(predictions, TARGET)
    pairs = [(answer or "", target) for answer, target in zip(answers, targets, strict=True) if target is not None]
    if not pairs:
        raise DataError("no prediction has a target, so nothing can be measured", field=TARGET)
    if all(answer is None for answer in answers):
        raise DataError(
            "nothing was written: the rows ask nothing",
            field=PREDICTION,
            remedy="measure plain texts with perplexity or bits-per-byte",
        )
    return pairs


def _rows(predictions: pa.Table, score: Callable[[str, str], float]) -> list[float]:
    answers, targets = _texts(predictions, PREDICTION), _texts(predictions, TARGET)
    return [
        0.0 if target is None else score(answer or "", target) for answer, target in zip(answers, targets, strict=True)
    ]


def _texts(predictions: pa.Table, name: str) -> list[str | None]:
    if name not in predictions.column_names:
        raise DataError(
            f"the predictions have no column {name!r}", field=name, accepted=", ".join(predictions.column_names)
        )
    found: list[str | None] = predictions.column(name).cast("string").to_pylist()
    return found


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
