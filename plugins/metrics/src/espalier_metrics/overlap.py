"""What two texts have in common: in words, in runs of words, in runs of characters. Pure.

Each result is kept for the pair of texts, because a bootstrap asks a thousand times for the same pairs.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

_KEPT = 1 << 16
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_WORD = re.compile(r"[^a-z0-9]+")
_ORDER, _BETA = 6, 2.0


def normal(text: str) -> str:
    """Returns a text as SQuAD's evaluation compares it (Rajpurkar et al. 2016): lower case, bare words, one space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


@lru_cache(maxsize=_KEPT)
def is_equal(answer: str, target: str) -> float:
    """Returns 1.0 where both are the same after `normal`, else 0.0."""
    return float(normal(answer) == normal(target))


@lru_cache(maxsize=_KEPT)
def f1_of_words(answer: str, target: str) -> float:
    """Returns the F1 of the words of both after `normal`; two texts without a word agree."""
    found, wanted = normal(answer).split(), normal(target).split()
    if not found or not wanted:
        return float(found == wanted)
    return _f1((Counter(found) & Counter(wanted)).total(), len(found), len(wanted))


@lru_cache(maxsize=_KEPT)
def rouge_scores(answer: str, target: str) -> tuple[float, float, float]:
    """Returns ROUGE-1, ROUGE-2 and ROUGE-L as F1, over lower-case runs of a-z and 0-9."""
    found, wanted = _NO_WORD.sub(" ", answer.lower()).split(), _NO_WORD.sub(" ", target.lower()).split()
    grams = []
    for size in (1, 2):
        ours, theirs = _grams(found, size), _grams(wanted, size)
        grams.append(_f1((ours & theirs).total(), ours.total(), theirs.total()))
    return grams[0], grams[1], _f1(_longest_common(found, wanted), len(found), len(wanted))


@lru_cache(maxsize=_KEPT)
def chrf_counts(answer: str, target: str) -> tuple[int, ...]:
    """Returns for each n from 1 to 6 the n-grams of characters of the answer, of the target, and of both."""
    found, wanted = "".join(answer.split()), "".join(target.split())
    counts: list[int] = []
    for size in range(1, _ORDER + 1):
        ours, theirs = _grams(found, size), _grams(wanted, size)
        counts += [ours.total(), theirs.total(), (ours & theirs).total()]
    return tuple(counts)


def chrf_score(counts: Sequence[int]) -> float:
    """Returns chrF2 from summed counts: the mean over those n that both sides have, from 0 to 100."""
    precision = recall = 0.0
    orders = 0
    for ours, theirs, both in zip(counts[::3], counts[1::3], counts[2::3], strict=True):
        if ours and theirs:
            precision, recall, orders = precision + both / ours, recall + both / theirs, orders + 1
    if not orders or not precision + recall:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return 100 * (1 + _BETA**2) * precision * recall / (_BETA**2 * precision + recall)


def _grams(items: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(items[place : place + size]) for place in range(len(items) - size + 1))


def _longest_common(left: Sequence[str], right: Sequence[str]) -> int:
    row = [0] * (len(right) + 1)
    for one in left:
        before = 0  # the length up to the column before, in the row above
        for place, other in enumerate(right, 1):
            above = row[place]
            row[place] = before + 1 if one == other else max(above, row[place - 1])
            before = above
    return row[-1]


def _f1(both: int, found: int, wanted: int) -> float:
    return 2 * both / (found + wanted) if found + wanted else 0.0
