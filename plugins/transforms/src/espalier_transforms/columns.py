"""Which columns of a table a transform acts on, and how a column is put back in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from espalier_sdk.columns import RESERVED_PREFIX
from espalier_sdk.errors import DataError
from espalier_sdk.groups import did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa


def text_columns(rows: pa.Table, chosen: Sequence[str] | None) -> list[str]:
    """Returns the chosen columns that are there, or all the user's columns of text.

    A chosen column may be absent: at serving only a task's text columns are there. Preprocessing checks before.
    """
    import pyarrow as pa

    if chosen is not None:
        return [name for name in chosen if name in rows.column_names]
    texts = (pa.string(), pa.large_string())
    return [field.name for field in rows.schema if field.type in texts and not field.name.startswith(RESERVED_PREFIX)]


def own_columns(names: Sequence[str]) -> list[str]:
    """Returns the user's columns, sorted, without those that stages add."""
    return sorted(name for name in names if not name.startswith(RESERVED_PREFIX))


def map_texts(rows: pa.Table, columns: Sequence[str], change: Callable[[str], str]) -> pa.Table:
    """Returns rows in which each text of some columns is changed; nulls stay. DataError where a column is no text."""
    import pyarrow as pa

    for name in columns:
        column = rows.column(name)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise DataError(f"column {name!r} holds {column.type}, not text", field=name, accepted="a column of text")
        changed = pa.array([None if text is None else change(text) for text in column.to_pylist()], pa.string())
        rows = rows.set_column(rows.column_names.index(name), name, changed)
    return rows


def need_column(rows: pa.Table, name: str) -> pa.ChunkedArray:
    """Returns a column; DataError with what is there where it is not."""
    if name not in rows.column_names:
        there = own_columns(rows.column_names)
        raise DataError(
            f"there is no column {name!r}",
            code="missing_column",
            field=name,
            accepted=", ".join(there),
            remedy=did_you_mean(name, there),
        )
    return rows.column(name)
