"""The parts of all sources read by Ray Data, one task for each, into records of one shape.

Batches travel as Arrow IPC inside a column of bytes, because files of one source may have different columns and
types, which Ray Data cannot hold in one dataset. Errors travel as values, so that all of them are told at once.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from espalier_sdk.columns import ERROR, LINE, ORIGIN, RAW
from espalier_sdk.errors import DataError, EspalierError

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

PARTS_PER_BLOCK = 64
LEAST_BLOCKS = 32

# The columns of a record.
SCHEMA = "schema"  # bytes: the schema of `good`
GOOD = "good"  # bytes: the readable rows, with ORIGIN and LINE
GOOD_ROWS = "good_rows"
BAD = "bad"  # bytes: JSON lines {origin, line, error, raw}
BAD_ROWS = "bad_rows"
SOURCE = "source"
FAILURE = "failure"  # bytes: a pickled EspalierError that ended the part, else null


@dataclass(frozen=True, slots=True)
class Task:
    """A part of a source that one worker reads."""

    source: int
    part: str  # JSON


def list_tasks(sources: Sequence[Any]) -> list[Task]:
    """Returns all parts in their lasting order; DataError for a source that has none."""
    tasks = [Task(index, json.dumps(part)) for index, source in enumerate(sources) for part in source.parts()]
    empty = [index for index in range(len(sources)) if all(task.source != index for task in tasks)]
    if empty:
        raise DataError("the source has nothing to read", field=f"sources[{empty[0]}]", remedy="check its config")
    return tasks


def read_tasks(tasks: Sequence[Task], sources: Sequence[Any]) -> ray.data.Dataset:
    """Returns the records of all tasks in order; nothing is read before the dataset is consumed."""
    import ray.data

    blocks = min(len(tasks), max(LEAST_BLOCKS, len(tasks) // PARTS_PER_BLOCK))
    items = [{"source": task.source, "part": task.part} for task in tasks]
    return ray.data.from_items(items, override_num_blocks=blocks).map_batches(
        reader(sources), batch_size=1, batch_format="pyarrow"
    )


def reader(sources: Sequence[Any]) -> Callable[[pa.Table], Iterator[pa.Table]]:
    """Returns the function that reads a table of tasks into records."""

    def read(tasks: pa.Table) -> Iterator[pa.Table]:
        for task in tasks.to_pylist():
            source = task["source"]
            try:
                for batch in sources[source].read(json.loads(task["part"])):
                    yield _record(batch, source)
            except EspalierError as error:
                yield _failure(error, source)

    return read


def _record(batch: pa.RecordBatch, source: int) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    table = pa.Table.from_batches([batch])
    readable = pc.is_null(table.column(ERROR))
    good = table.filter(readable).drop_columns([ERROR, RAW])
    bad = (
        table.filter(pc.invert(readable))
        .select([ORIGIN, LINE, ERROR, RAW])
        .rename_columns(["origin", "line", "error", "raw"])
    )
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in bad.to_pylist())
    return _table(
        schema=good.schema.remove_metadata().serialize().to_pybytes(),
        good=_ipc(good),
        good_rows=good.num_rows,
        bad=lines.encode(),
        bad_rows=bad.num_rows,
        source=source,
        failure=None,
    )


def _failure(error: EspalierError, source: int) -> pa.Table:
    return _table(schema=None, good=None, good_rows=0, bad=b"", bad_rows=0, source=source, failure=pickle.dumps(error))


def _table(**values: Any) -> pa.Table:
    import pyarrow as pa

    schema = pa.schema(
        [
            (SCHEMA, pa.binary()),
            (GOOD, pa.binary()),
            (GOOD_ROWS, pa.int64()),
            (BAD, pa.binary()),
            (BAD_ROWS, pa.int64()),
            (SOURCE, pa.int64()),
            (FAILURE, pa.binary()),
        ]
    )
    return pa.Table.from_pylist([values], schema=schema)


def _ipc(table: pa.Table) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def open_good(record: bytes) -> pa.Table:
    """Returns the readable rows of a record."""
    import pyarrow as pa

    return pa.ipc.open_stream(record).read_all()
