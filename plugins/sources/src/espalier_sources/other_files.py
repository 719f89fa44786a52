"""Rows of parquet files, as they are, and of plain text, one for each line or for the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from espalier_sdk.errors import DataError

from espalier_sources.batches import ROWS_PER_BATCH, Bad, check_names, make_batch, record_batches
from espalier_sources.config import FilesConfig
from espalier_sources.encodings import Lines, decode_whole
from espalier_sources.finding import FoundFile, unreadable
from espalier_sources.streams import open_bytes

if TYPE_CHECKING:
    import pyarrow as pa


def read_parquet(file: FoundFile) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a parquet file in their order; a compressed one is unpacked in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with _parquet_input(file) as source:
            parquet = pq.ParquetFile(source)
            check_names(parquet.schema_arrow.names, file)
            row = 1
            for batch in parquet.iter_batches(batch_size=ROWS_PER_BATCH):
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                yield make_batch(columns, origin=file.name, lines=range(row, row + batch.num_rows), bad={})
                row += batch.num_rows
            if row == 1:
                columns = {field.name: pa.array([], field.type) for field in parquet.schema_arrow}
                yield make_batch(columns, origin=file.name, lines=[], bad={})
    except PermissionError as error:
        raise unreadable(file.path, error) from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"no whole parquet file: {' '.join(str(error).split())[:200]}",
            code="damaged_file",
            file=file.path,
            remedy="write or fetch it again: it is cut short, damaged, or of another format",
        ) from error


def _parquet_input(file: FoundFile) -> Any:
    import pyarrow as pa

    if file.compression is None:
        return pa.OSFile(file.path, "rb")
    with open_bytes(file) as source:
        return pa.BufferReader(source.rest())


def read_text(file: FoundFile, config: FilesConfig) -> Iterator[pa.RecordBatch]:
    """Yields one column of text; blank lines are left out, and a file that is one row keeps all its characters."""
    with open_bytes(file) as source:
        if config.rows == "file":
            text = decode_whole(source.rest(), file, encoding=config.encoding)
            rows: Iterator[tuple[int, dict[str, Any] | Bad, int]] = iter([(1, {config.text_column: text}, len(text))])
        else:
            rows = _line_rows(Lines(source, file, encoding=config.encoding), config.text_column)
        yield from record_batches(rows, origin=file.name)


def _line_rows(lines: Lines, column: str) -> Iterator[tuple[int, dict[str, Any] | Bad, int]]:
    for number, line in enumerate(lines, start=1):
        if number in lines.broken:
            yield number, (lines.broken[number], line), len(line)
        elif line and not line.isspace():
            yield number, {column: line}, len(line)
