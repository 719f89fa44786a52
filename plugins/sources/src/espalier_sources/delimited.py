"""Rows of csv and tsv files, all values as text; a row that does not fit becomes a bad row with its line."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from espalier_sdk.errors import DataError

from espalier_sources.batches import ROWS_PER_BATCH, Bad, check_names, make_batch
from espalier_sources.config import FilesConfig
from espalier_sources.dialect import Dialect, detect_dialect
from espalier_sources.encodings import Lines
from espalier_sources.finding import FoundFile
from espalier_sources.streams import open_bytes

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE_LINES = 5_000
FIELD_CHARACTERS = 8 * 2**20  # also how far a quote that is never closed can reach


def read_delimited(file: FoundFile, config: FilesConfig) -> Iterator[pa.RecordBatch]:
    """Yields the rows of one file; an empty field is null."""
    csv.field_size_limit(max(csv.field_size_limit(), FIELD_CHARACTERS))
    with open_bytes(file) as source:
        lines = Lines(source, file, encoding=config.encoding)
        feed = _Feed(lines.blocks())
        sample = feed.sample(SAMPLE_LINES)
        dialect = detect_dialect(sample, format=file.format, delimiter=config.delimiter, quote=config.quote)
        names = config.columns or _header(_rows(feed, dialect, lines.broken, None, ""), file)
        if names:
            check_names(names, file)
            whose = "`columns` names" if config.columns else "the file has"
            yield from _batches(feed, dialect, lines.broken, names, whose, file)


class _Feed:
    """Hands lines to the csv reader and remembers those of the row at work, so that it can be read anew."""

    def __init__(self, blocks: Iterator[list[str]]) -> None:
        self._blocks = blocks
        self._block: list[str] = []
        self._at = 0  # how much of the block has been handed out
        self._again: deque[str] = deque()
        self.window: list[str] = []
        self.first = 1  # the number of the first line of the row at work

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._again:
            line = self._again.popleft()
        elif self._more():
            line = self._block[self._at]
            self._at += 1
        else:
            raise StopIteration
        self.window.append(line)
        return line + "\n"

    def sample(self, count: int) -> list[str]:
        """Returns the first lines, without handing them out."""
        return self._block[:count] if self._more() else []

    def done(self) -> None:
        """Ends the row at work."""
        self.first += len(self.window)
        self.window = []

    def keep_first(self) -> None:
        """Gives all lines but the first of the row at work back, to be read as rows of their own."""
        self.give_back(self.window[1:])
        del self.window[1:]

    def take(self) -> list[str]:
        """Returns the lines of a batch: those that were given back, or some of a block."""
        if self._again:
            lines = list(self._again)
            self._again.clear()
        else:
            lines = self._block[self._at : self._at + ROWS_PER_BATCH] if self._more() else []
            self._at += len(lines)
        return lines

    def give_back(self, lines: list[str]) -> None:
        """Puts lines in front of those to come."""
        self._again.extendleft(reversed(lines))

    def has_given_back(self) -> bool:
        """Tells whether lines that were taken wait to be read."""
        return bool(self._again)

    def _more(self) -> bool:
        while self._at >= len(self._block):
            block = next(self._blocks, None)
            if block is None:
                return False
            self._block, self._at = block, 0
        return True


def _batches(
    feed: _Feed, dialect: Dialect, broken: dict[int, str], names: Sequence[str], whose: str, file: FoundFile
) -> Iterator[pa.RecordBatch]:
    width = len(names)
    rows: list[list[str]] = []
    while lines := feed.take():
        first = feed.first
        plain = _plain_rows(lines, dialect, width)
        if plain is not None and not any(first <= line < first + len(lines) for line in broken):
            feed.first += len(lines)
            rows, places = plain, list(range(first, feed.first))
            bad: dict[int, Bad] = {}
        else:
            feed.give_back(lines)
            rows, places, bad = _careful_rows(feed, dialect, broken, width, whose)
        yield make_batch(_columns(rows, names), origin=file.name, lines=places, bad=bad)
    if not rows:
        yield make_batch(_columns([], names), origin=file.name, lines=[], bad={})


def _plain_rows(lines: list[str], dialect: Dialect, width: int) -> list[list[str]] | None:
    """Returns a row for each line where that is all there is to it, which is twice as fast; else None."""
    try:
        rows = list(csv.reader(lines, **dialect.options(strict=True)))  # type: ignore[arg-type]
    except csv.Error:
        return None
    return rows if len(rows) == len(lines) and set(map(len, rows)) == {width} else None


def _careful_rows(
    feed: _Feed, dialect: Dialect, broken: dict[int, str], width: int, whose: str
) -> tuple[list[list[str]], list[int], dict[int, Bad]]:
    """Returns rows, their lines, and which of them are bad and why, up to the end of the lines that were given back."""
    nothing = [""] * width
    rows: list[list[str]] = []
    places: list[int] = []
    bad: dict[int, Bad] = {}
    for line, row in _rows(feed, dialect, broken, width, whose):
        if isinstance(row, tuple):
            bad[len(rows)] = row
        rows.append(nothing if isinstance(row, tuple) else row)
        places.append(line)
        if not feed.has_given_back():
            break
    return rows, places, bad


def _rows(
    feed: _Feed, dialect: Dialect, broken: dict[int, str], width: int | None, whose: str
) -> Iterator[tuple[int, list[str] | Bad]]:
    """Yields (first line, fields or what is bad) until the lines end; blank lines are left out."""
    reader = csv.reader(feed, **dialect.options(strict=True))  # type: ignore[arg-type]
    while True:
        wrong: str | None = None
        fields: list[str] = []
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            wrong = f"broken quotes or fields: {error}"
        if wrong is None and fields and width is not None and len(fields) != width:
            wrong = f"{len(fields)} fields, {whose} {width}"
        if wrong is not None and len(feed.window) > 1:
            # A quote that was opened by mistake swallows lines until the next one: only its own line is bad.
            feed.keep_first()
        first = feed.first
        if broken and wrong is None:
            wrong = next((broken[line] for line in range(first, first + len(feed.window)) if line in broken), None)
        raw = "\n".join(feed.window) if wrong is not None else ""
        feed.done()
        if wrong is not None:
            yield first, (wrong, raw)
        elif fields:
            yield first, fields


def _header(rows: Iterator[tuple[int, list[str] | Bad]], file: FoundFile) -> tuple[str, ...]:
    line, first = next(rows, (1, []))
    if isinstance(first, tuple):
        raise DataError(f"the header cannot be read: {first[0]}", file=file.path, line=line, remedy="repair it")
    return tuple(name.strip() or f"column_{place}" for place, name in enumerate(first, start=1))


def _columns(values: list[list[str]], names: Sequence[str]) -> dict[str, pa.Array]:
    by_column = zip(*values, strict=True) if values else ((),) * len(names)
    return {name: _texts(column) for name, column in zip(names, by_column, strict=True)}


def _texts(column: Sequence[str]) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pa.array(column, pa.string())
    empty = pc.equal(texts, "")
    return pc.if_else(empty, pa.scalar(None, pa.string()), texts) if pc.any(empty).as_py() else texts
