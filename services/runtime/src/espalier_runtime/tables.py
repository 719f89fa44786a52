"""Parquet folders with deterministic names, order and bytes: one writer, rows as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from espalier_sdk.errors import DataError

ROWS_PER_FILE = 50_000
ROWS_PER_GROUP = 10_000


def write_parts(batches: Iterable[pa.Table], folder: Path, rows_per_file: int = ROWS_PER_FILE) -> int:
    """Writes `part-00000.parquet` ... and returns the number of rows.

    Files and row groups are cut by row count alone, and what a batch says about itself (pandas' index) is left
    out, so that the bytes do not depend on how rows were batched. Raises DataError where a later batch has
    a column of another type than the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, files, held, writer = 0, 0, 0, None
    try:
        for table in _slices(batches, min(ROWS_PER_GROUP, rows_per_file)):
            start = 0
            while start < table.num_rows or writer is None:
                if writer is None or held >= rows_per_file:
                    if writer is not None:
                        writer.close()
                    path = folder / f"part-{files:05d}.parquet"
                    writer, held, files = pq.ParquetWriter(path, table.schema, compression="zstd"), 0, files + 1
                piece = table.slice(start, rows_per_file - held)
                writer.write_table(piece.combine_chunks(), row_group_size=ROWS_PER_GROUP)
                start, rows, held = start + piece.num_rows, rows + piece.num_rows, held + piece.num_rows
    finally:
        if writer is not None:
            writer.close()
    return rows


def _slices(batches: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Regroups tables to exactly `size` rows each, the last one shorter, all of the schema of the first `size` rows."""
    held: list[pa.Table] = []
    count, schema = 0, None
    for table in batches:
        held.append(table.replace_schema_metadata(None) if schema is None else _as(table, schema))
        count += table.num_rows
        while count >= size:
            schema = schema or _common_schema(held)
            joined = pa.concat_tables(_as(one, schema) for one in held)
            yield joined.slice(0, size)
            held, count = [joined.slice(size)], count - size
    if held and (count or schema is None):
        schema = schema or _common_schema(held)
        yield pa.concat_tables(_as(one, schema) for one in held)


def _common_schema(tables: list[pa.Table]) -> pa.Schema:
    """Returns the schema of several tables; a column that is absent or null in one takes its type from the others."""
    try:
        return pa.unify_schemas([table.schema for table in tables])
    except pa.ArrowTypeError:
        for table in tables[1:]:
            _as(table, tables[0].schema)
        raise


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    bare = table.replace_schema_metadata(None)
    if bare.schema.equals(schema):
        return bare
    for name in schema.names:
        if name not in bare.column_names:
            bare = bare.append_column(name, pa.nulls(bare.num_rows, schema.field(name).type))
    for field in bare.schema:
        wanted = schema.field(field.name).type if field.name in schema.names else pa.null()
        if field.type != wanted and not pa.types.is_null(field.type):
            raise DataError(
                f"column {field.name} is {field.type} in some rows and {wanted} in others",
                code="columns",
                field=field.name,
                remedy="give each column one type",
            )
    return bare.select(schema.names).cast(schema)


def part_files(folder: Path) -> list[Path]:
    """Returns the Parquet files of a folder in row order; DataError where there is none."""
    files = sorted(folder.glob("part-*.parquet"))
    if not files:
        raise DataError("holds no part-*.parquet", file=str(folder), remedy="run the stage that makes it again")
    return files


def read_parts(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """Returns a whole folder as one table, in row order."""
    tables = [pq.read_table(path, columns=columns) for path in part_files(folder)]
    return pa.concat_tables(tables, promote_options="default")


def iter_parts(folder: Path, rows: int = ROWS_PER_GROUP) -> Iterator[pa.Table]:
    """Yields a folder's rows in order without holding more than one row group."""
    for path in part_files(folder):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=rows):
            yield pa.Table.from_batches([batch])


def count_rows(folder: Path) -> int:
    """Returns the number of rows, read from the footers."""
    return sum(pq.ParquetFile(path).metadata.num_rows for path in part_files(folder))
