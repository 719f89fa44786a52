"""One schema for all files: which columns there are, of which type, and rows brought to it with their ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from espalier_sdk.columns import ID, LINE, ORIGIN, RESERVED_PREFIX
from espalier_sdk.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_ID_BYTES = 16


def unify(schemas: Sequence[pa.Schema]) -> tuple[pa.Schema, list[str]]:
    """Returns the user's columns over all schemas in order of appearance, and a note for each conflict of types.

    Numbers of several widths become the widest; what cannot be one type becomes text.
    """
    import pyarrow as pa

    types: dict[str, list[pa.DataType]] = {}
    for schema in schemas:
        for field in schema:
            if field.name not in (ORIGIN, LINE):
                types.setdefault(field.name, []).append(_plain(field.type))
    _refuse_reserved(list(types))
    notes: list[str] = []
    fields = []
    for name, seen in types.items():
        common = _common(seen)
        if common is None:
            kinds = ", ".join(dict.fromkeys(str(one) for one in seen if not pa.types.is_null(one)))
            notes.append(f"column {name!r} holds {kinds} in different places: all of it became text")
            common = pa.string()
        fields.append(pa.field(name, common))
    return pa.schema(fields), notes


def mixed_columns(schemas: Sequence[pa.Schema], schema: pa.Schema) -> list[str]:
    """Returns the columns whose type in some place is another than in the schema: whose values may not fit it."""
    names = {field.name for one in schemas for field in one if field.name in schema.names}
    return sorted(
        name
        for name in names
        if any(name in one.names and _plain(one.field(name).type) != schema.field(name).type for one in schemas)
    )


def misfits(rows: pa.Table, schema: pa.Schema, names: Sequence[str]) -> list[str]:
    """Returns the columns, of those named, that hold a value which their type in the schema cannot hold."""
    import pyarrow as pa

    found = []
    for name in names:
        if name in rows.column_names:
            try:
                _cast(rows.column(name), schema.field(name).type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                found.append(name)
    return found


def as_text(schema: pa.Schema, names: Sequence[str]) -> tuple[pa.Schema, list[str]]:
    """Returns the schema with some columns as text, and a note for each."""
    import pyarrow as pa

    notes = [f"column {name!r} holds values that {schema.field(name).type} cannot: all of it is text" for name in names]
    fields = [pa.field(one.name, pa.string()) if one.name in names else one for one in schema]
    return pa.schema(fields), notes


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns rows with the columns of a schema (absent ones null), then ORIGIN, LINE and ID."""
    import pyarrow as pa

    columns = [
        _cast(rows.column(field.name), field.type)
        if field.name in rows.column_names
        else pa.chunked_array([pa.nulls(rows.num_rows, field.type)])
        for field in schema
    ]
    own = pa.table(columns, schema=schema)
    return (
        own.append_column(ORIGIN, rows.column(ORIGIN).cast(pa.string()))
        .append_column(LINE, rows.column(LINE).cast(pa.int64()))
        .append_column(ID, pa.array(row_ids(own), pa.string()))
    )


def row_ids(rows: pa.Table) -> list[str]:
    """Returns 32 hex digits for each row over its values that are not null; equal rows have equal ids."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str).encode
    names = sorted(rows.column_names)
    columns = [rows.column(name).to_pylist() for name in names]
    ids = []
    for values in zip(*columns, strict=True):
        content = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        ids.append(hashlib.blake2b(encode(content).encode(), digest_size=_ID_BYTES).hexdigest())
    return ids


def _refuse_reserved(names: Sequence[str]) -> None:
    reserved = [name for name in names if name.startswith(RESERVED_PREFIX)]
    if reserved:
        raise DataError(
            f"column {reserved[0]!r}: names that begin with {RESERVED_PREFIX!r} are Espalier's own",
            field=reserved[0],
            remedy="rename the column",
        )


def _plain(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def _common(types: Sequence[pa.DataType]) -> pa.DataType | None:
    """Returns the type that holds all of several, or None."""
    import pyarrow as pa

    different = list(dict.fromkeys(types))
    if different == [pa.null()]:
        return pa.string()
    if len(different) == 1:
        return different[0]
    try:
        schema = pa.unify_schemas([pa.schema([("", kind)]) for kind in different], promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return schema.field(0).type


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    import pyarrow as pa

    if column.type == kind:
        return column
    binary = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
    if kind == pa.string() and (binary or pa.types.is_nested(column.type) or pa.types.is_temporal(column.type)):
        return pa.chunked_array([pa.array([_as_json(value) for value in column.to_pylist()], kind)])
    return column.cast(kind)


def _as_json(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")  # loses nothing
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else str(value)
