"""Where personal data stand in a text: Presidio's recognisers, asked only where a text can hold their kind.

Knows nothing about tables. Loads Presidio when a finder is made.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from espalier_anonymize.anonymize import Kind

LEAST_SCORE = 0.3  # drops the pattern that takes a bare `::` for an address
Find = Callable[[str], "list[Span]"]

# Presidio's package loads every engine that is installed. None is used here, and without them a worker is ready
# 4.4 s earlier (5.2 s and 0.8 s, two cores).
_ENGINES = ("torch", "transformers", "stanza", "gliner", "spacy_huggingface_pipelines", "tensorflow", "cupy", "mxnet")

# A kind's recogniser runs only where its gate opens; phone numbers cost 0.3 ms for each region otherwise.
_GATES: dict[Kind, re.Pattern[str]] = {
    "email": re.compile("@"),
    "phone": re.compile(r"(?:\d[^\w\n]{0,3}){6}"),
    "card": re.compile(r"(?:\d[ -]?){12}"),
    "iban": re.compile(r"[A-Za-z]{2}[0-9]{2}"),
    "ip": re.compile(r"\d\.\d|:[0-9A-Fa-f]{0,4}:"),
    "url": re.compile(r"\w\.\w"),
}


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text that is personal."""

    start: int
    end: int
    kind: Kind
    score: float


@cache
def finder(kinds: tuple[Kind, ...], regions: tuple[str, ...]) -> Find:
    """Returns a function from a text to what is personal in it, in order, without overlaps."""
    recognisers = [(kind, _GATES[kind], _recogniser(kind, regions)) for kind in kinds]

    def find(text: str) -> list[Span]:
        found = [
            Span(result.start, result.end, kind, result.score)
            for kind, gate, recogniser in recognisers
            if gate.search(text)
            for result in recogniser.analyze(text, recogniser.supported_entities, None)
            if result.score >= LEAST_SCORE and _is_whole(text, result.end, kind)
        ]
        return apart(found)

    return find


def apart(found: list[Span]) -> list[Span]:
    """Returns spans that do not overlap: of two that do, the surer stays, then the longer, then the first."""
    kept: list[Span] = []
    for span in sorted(found, key=lambda span: (-span.score, span.start - span.end, span.start)):
        if all(span.end <= other.start or span.start >= other.end for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda span: span.start)


def _is_whole(text: str, end: int, kind: Kind) -> bool:
    """Tells whether a link ends where a word does: the pattern finds `me.pl` in `tell me.please`."""
    return kind != "url" or not text[end : end + 1].isalnum()


def _recogniser(kind: Kind, regions: tuple[str, ...]) -> Any:
    with _without(_ENGINES):
        from presidio_analyzer import predefined_recognizers as known
    if kind == "phone":
        return known.PhoneRecognizer(supported_regions=regions)
    if kind == "email":
        return _offline(known.EmailRecognizer)()
    return {
        "card": known.CreditCardRecognizer,
        "iban": known.IbanRecognizer,
        "ip": known.IpRecognizer,
        "url": known.UrlRecognizer,
    }[kind]()


def _offline(recogniser: type[Any]) -> type[Any]:
    """Returns the mail recogniser with a list of domains of its own: Presidio's fetches one at first use."""
    import tldextract

    extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

    class OfflineEmailRecognizer(recogniser):  # type: ignore[misc]
        def validate_result(self, pattern_text: str) -> bool:
            return bool(extract(pattern_text).fqdn)

    return OfflineEmailRecognizer


@contextmanager
def _without(modules: tuple[str, ...]) -> Iterator[None]:
    """Makes imports of modules that are not loaded yet fail for a while, as if they were not installed."""
    blocked = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(blocked))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in blocked:
            sys.modules.pop(name, None)
