"""Record batches as every source yields them: the file's columns, and where each row came from or why it is bad."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from espalier_sdk.columns import ERROR, LINE, ORIGIN, RAW, RESERVED_PREFIX
from espalier_sdk.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from espalier_sources.finding import FoundFile

ROWS_PER_BATCH = 10_000
CHARACTERS_PER_BATCH = 8 * 2**20
RAW_CHARACTERS = 10_000

Bad = tuple[str, str]  # why, and the text of the row


def make_batch(
    columns: Mapping[str, pa.Array], *, origin: str, lines: Sequence[int], bad: Mapping[int, Bad]
) -> pa.RecordBatch:
    """Returns a batch; `bad` tells for a place in it why that row cannot be read, and its text."""
    import pyarrow as pa

    count = len(lines)
    errors, raws = [None] * count, [None] * count
    for place, (why, raw) in bad.items():
        errors[place], raws[place] = why, raw[:RAW_CHARACTERS]  # type: ignore[call-overload]
    return pa.RecordBatch.from_pydict(
        {
            **columns,
            ORIGIN: pa.repeat(origin, count),
            LINE: pa.array(lines, pa.int64()),
            ERROR: pa.array(errors, pa.string()),
            RAW: pa.array(raws, pa.string()),
        }
    )


def record_batches(
    rows: Iterable[tuple[int, Mapping[str, Any] | Bad, int]], *, origin: str
) -> Iterator[pa.RecordBatch]:
    """Yields batches of rows that are mappings, or bad; each comes with its line and its size in characters."""
    records: list[Mapping[str, Any]] = []
    lines: list[int] = []
    bad: dict[int, Bad] = {}
    size = 0
    for line, row, characters in rows:
        if isinstance(row, tuple):
            bad[len(lines)] = row
            records.append({})
        else:
            records.append(row)
        lines.append(line)
        size += characters
        if len(lines) >= ROWS_PER_BATCH or size >= CHARACTERS_PER_BATCH:
            yield make_batch(_columns(records), origin=origin, lines=lines, bad=bad)
            records, lines, bad, size = [], [], {}, 0
    if lines:
        yield make_batch(_columns(records), origin=origin, lines=lines, bad=bad)


def check_names(names: Iterable[str], file: FoundFile) -> None:
    """Refuses names that stages add themselves, and names that stand twice."""
    seen: set[str] = set()
    for name in names:
        if name.startswith(RESERVED_PREFIX):
            raise DataError(
                f"column {name!r}: names that begin with {RESERVED_PREFIX!r} are Espalier's own",
                file=file.path,
                field=name,
                remedy="rename the column",
            )
        if name in seen:
            raise DataError(
                f"two columns are called {name!r}",
                file=file.path,
                line=1,
                field=name,
                remedy="rename one, or give `columns` if the file has no header",
            )
        seen.add(name)


def _columns(records: Sequence[Mapping[str, Any]]) -> dict[str, pa.Array]:
    names = dict.fromkeys(name for record in records for name in record)
    return {name: _array([record.get(name) for record in records]) for name in names}


def _array(values: list[Any]) -> pa.Array:
    """Returns values of one type as they are, and mixed ones as text (what is no text as JSON)."""
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array(
            [
                value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                for value in values
            ],
            pa.string(),
        )
