"""How a delimited text is written: its delimiter and its quotes, found in the first lines."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

DELIMITERS = {"csv": (",", ";", "\t", "|"), "tsv": ("\t",)}
QUOTE = '"'
_CLEARLY = 0.1  # how much better another delimiter than the format's own must fit to be believed


@dataclass(frozen=True, slots=True)
class Dialect:
    """The delimiter, and the quote or an empty string for none."""

    delimiter: str
    quote: str

    def options(self, *, strict: bool) -> dict[str, object]:
        """Returns the options of `csv.reader`."""
        quoting = csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE
        return {"delimiter": self.delimiter, "quotechar": self.quote or None, "quoting": quoting, "strict": strict}


def detect_dialect(lines: Sequence[str], *, format: str, delimiter: str | None, quote: str | None) -> Dialect:
    """Returns the dialect in which the most lines have the same number of fields; what is given is kept."""
    own, *others = (delimiter,) if delimiter else DELIMITERS[format]
    best = _with_quote(lines, own, quote)
    fit = _evenness(lines, best)
    for other in others:
        dialect = _with_quote(lines, other, quote)
        if (even := _evenness(lines, dialect)) > fit + _CLEARLY:
            best, fit = dialect, even
    return best


def _with_quote(lines: Sequence[str], delimiter: str, quote: str | None) -> Dialect:
    if quote is not None:
        return Dialect(delimiter, quote)
    quoted, bare = Dialect(delimiter, QUOTE), Dialect(delimiter, "")
    if _quotes_are_text(lines, delimiter) and _evenness(lines, bare) >= _evenness(lines, quoted):
        return bare
    return quoted


def _quotes_are_text(lines: Sequence[str], delimiter: str) -> bool:
    """Tells whether quotes at the start of a field are the writer's words, as in `ham<tab>"Gimme a few" was ...`.

    They are where fields are seldom quoted, and more of them end in the middle than have a delimiter or a doubled
    quote inside, which is what quoting is for.
    """
    edge = re.escape(delimiter)
    opened = re.compile(f'(?:^|{edge})"')
    closed = re.compile(f'(?:^|{edge})"((?:[^"]|"")*)"(?={edge}|$)')
    begun = ended = needed = 0
    for line in lines:
        if QUOTE in line:
            begun += len(opened.findall(line))
            inside = closed.findall(line)
            ended += len(inside)
            needed += sum(delimiter in field or QUOTE in field for field in inside)
    return begun * 2 < len(lines) and begun - ended > needed


def _evenness(lines: Sequence[str], dialect: Dialect) -> float:
    """Returns the share of lines that stand in rows of the commonest width; 0 where that is one field.

    It counts half where the first row, the header as a rule, has another width: commas inside texts look like that.
    """
    widths: Counter[int] = Counter()
    before, header = 0, None
    reader = csv.reader([line + "\n" for line in lines], **dialect.options(strict=False))  # type: ignore[arg-type]
    try:
        for row in reader:
            widths[len(row)] += reader.line_num - before
            header = len(row) if header is None else header
            before = reader.line_num
    except csv.Error:  # a quote that is opened and never closed outgrows a field
        widths[0] += len(lines) - before
    if not widths:
        return 0.0
    width, count = widths.most_common(1)[0]
    if width < 2:
        return 0.0
    return count / len(lines) / (1 if header == width else 2)
