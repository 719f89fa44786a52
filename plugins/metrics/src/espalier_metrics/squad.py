"""The metric `squad`: exact match and word F1 of extracted answers (Rajpurkar et al. 2016 and 2018)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from espalier_sdk.choice import PluginConfig
from espalier_sdk.columns import PREDICTION, TARGET
from espalier_sdk.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class SquadConfig(PluginConfig):
    """This metric has nothing to choose."""


class Squad:
    """How much of an answer is right, against the nearest of several: all of it, and by words.

    Case, punctuation, articles and spaces do not count. A question without an answer is right where none is given.
    """

    contract: ClassVar[int] = 1
    Config: ClassVar[type[SquadConfig]] = SquadConfig
    greater_is_better: ClassVar[bool] = True
    reports: ClassVar[tuple[str, ...]] = ("squad_exact_match", "squad_f1")

    def __init__(self, config: SquadConfig) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float]:
        """Returns the F1 of each row; 0 for one whose answers are not known."""
        return [0.0 if targets is None else score(targets, answer)[1] for targets, answer in _pairs(predictions)]

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns `squad_exact_match` and `squad_f1` from 0 to 1, over all rows whose answers are known.

        Where some have an answer and some have none, also `squad_f1/answered` and `squad_f1/unanswerable`.
        """
        known = [(targets, answer) for targets, answer in _pairs(predictions) if targets is not None]
        if not known:
            raise DataError(
                "no prediction has a target, so nothing can be measured",
                field=TARGET,
                remedy="evaluate on a split whose rows have answers",
            )
        scores = [score(targets, answer) for targets, answer in known]
        exact, f1 = zip(*scores, strict=True)
        found = {"squad_exact_match": _mean(exact), "squad_f1": _mean(f1)}
        parts: dict[str, list[float]] = {"answered": [], "unanswerable": []}
        for (targets, _), one in zip(known, f1, strict=True):
            parts["answered" if targets else "unanswerable"].append(one)
        if all(parts.values()):
            found |= {f"squad_f1/{name}": _mean(values) for name, values in parts.items()}
        return found


@lru_cache(maxsize=1 << 16)  # intervals ask for the same rows a thousand times
def score(targets: tuple[str, ...], answer: str) -> tuple[float, float]:
    """Returns exact match and F1 of an answer against the nearest target; no target: the answer should be empty."""
    both = [_against(target, answer) for target in targets or ("",)]
    return max(exact for exact, _ in both), max(f1 for _, f1 in both)


def normalised(text: str) -> str:
    """Returns lower-case words without punctuation and articles."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _against(target: str, answer: str) -> tuple[float, float]:
    wanted, given = normalised(target), normalised(answer)
    words, told = wanted.split(), given.split()
    if not words or not told:
        return float(wanted == given), float(wanted == given)
    common = (Counter(words) & Counter(told)).total()
    return float(wanted == given), 2 * common / (len(words) + len(told))


def _pairs(predictions: pa.Table) -> Iterator[tuple[tuple[str, ...] | None, str]]:
    import pyarrow as pa

    if TARGET not in predictions.column_names or not pa.types.is_list(predictions.column(TARGET).type):
        raise DataError(
            f"the predictions have no column {TARGET!r} of answers",
            field=TARGET,
            accepted=", ".join(predictions.column_names),
            remedy="measure a task that answers questions from a context",
        )
    targets, answers = predictions.column(TARGET).to_pylist(), predictions.column(PREDICTION).to_pylist()
    for known, answer in zip(targets, answers, strict=True):
        yield None if known is None else tuple(known), answer or ""


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
