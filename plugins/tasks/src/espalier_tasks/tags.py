"""Tags of words in IOB2 (Tjong Kim Sang and Veenstra 1999): checked, made from spans, and turned into spans.

`B-x` begins an entity of type x, `I-x` goes on with it, `O` is outside of all. Knows nothing about tables or models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

OUTSIDE = "O"
_WORD = re.compile(r"\w+|[^\w\s]")

Span = tuple[int, int]  # characters, the end not included


def words_of(text: str) -> list[Span]:
    """Returns the places of the words of a text: runs of letters and digits, and each other mark alone."""
    return [match.span() for match in _WORD.finditer(text)]


def fault(tags: Sequence[str]) -> str | None:
    """Returns what is wrong with the tags of one row, or None."""
    before = OUTSIDE
    for place, tag in enumerate(tags):
        mark, dash, kind = (tag or "").partition("-")
        if tag != OUTSIDE and not (mark in ("B", "I") and dash and kind):
            return f"tag {place} is {tag!r}, which is none of O, B-x and I-x"
        if mark == "I" and before not in (f"B-{kind}", f"I-{kind}"):
            return f"tag {place} is {tag!r} after {before!r}, but an entity begins with 'B-{kind}'"
        before = tag
    return None


def types_in(tags: Sequence[str]) -> set[str]:
    """Returns the types of entities in some tags."""
    return {tag[2:] for tag in tags if tag != OUTSIDE}


def repaired(tags: Sequence[str]) -> list[str]:
    """Returns tags in which every entity begins with B-: an I- that goes on with nothing begins one."""
    found: list[str] = []
    for tag in tags:
        goes_on = tag.startswith("I-") and found and found[-1] in (f"B-{tag[2:]}", tag)
        found.append(f"B-{tag[2:]}" if tag.startswith("I-") and not goes_on else tag)
    return found


def tags_of(spans: Sequence[Mapping[str, Any]], words: Sequence[Span]) -> list[str]:
    """Returns a tag for each word; a span that ends within a word is widened to the whole of it.

    Raises ValueError for a span that is none, that holds no word, or that shares a word with another.
    """
    tags = [OUTSIDE] * len(words)
    for span in sorted(spans, key=lambda one: (one["start"], one["end"])):
        start, end, kind = span["start"], span["end"], span["label"]
        inside = [place for place, (first, last) in enumerate(words) if first < end and last > start]
        if start is None or end is None or not kind or not 0 <= start < end or not inside:
            raise ValueError(f"the span {dict(span)} holds no word of the text")
        if any(tags[place] != OUTSIDE for place in inside):
            raise ValueError(f"the span {dict(span)} shares a word with another")
        for place in inside:
            tags[place] = f"{'B' if place == inside[0] else 'I'}-{kind}"
    return tags


def check_places(spans: Sequence[Mapping[str, Any]], text: str) -> None:
    """Raises ValueError for a span that stands beside what was meant, as spans do whose text was changed later.

    It ends beyond the text, begins or ends with white space, or holds another text than its own `text`.
    """
    for span in spans:
        held, told = text[span["start"] : span["end"]], span.get("text")
        if span["end"] > len(text):
            raise ValueError(f"the span {dict(span)} ends beyond the text, which has {len(text)} characters")
        if held != held.strip():
            raise ValueError(f"the span {dict(span)} begins or ends with white space: it holds {held!r}")
        if told is not None and told != held:
            raise ValueError(f"the span {dict(span)} holds {held!r}, which is not its text")


def entities(tags: Sequence[str], words: Sequence[Span], scores: Sequence[float]) -> list[dict[str, Any]]:
    """Returns start, end, label and score (the least of its words) of each entity of well-formed tags."""
    found: list[dict[str, Any]] = []
    for tag, (start, end), score in zip(tags, words, scores, strict=True):
        if tag.startswith("B-"):
            found.append({"start": start, "end": end, "label": tag[2:], "score": score})
        elif tag != OUTSIDE:
            found[-1]["end"] = end
            found[-1]["score"] = min(found[-1]["score"], score)
    return found
