"""Rows of jsonl and json files: objects by their keys, lists by `columns`, bare text under `text_column`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from espalier_sdk.errors import DataError

from espalier_sources.batches import Bad, check_names, record_batches
from espalier_sources.config import FilesConfig
from espalier_sources.encodings import Lines, decode_whole
from espalier_sources.finding import FoundFile
from espalier_sources.streams import open_bytes

if TYPE_CHECKING:
    import pyarrow as pa

Row = tuple[int, Mapping[str, Any] | Bad, int]


def read_jsonl(file: FoundFile, config: FilesConfig) -> Iterator[pa.RecordBatch]:
    """Yields a row for each line that holds a value; blank lines are left out."""
    with open_bytes(file) as source:
        lines = Lines(source, file, encoding=config.encoding)
        for batch in record_batches(_line_rows(lines, config), origin=file.name):
            check_names(batch.schema.names[:-4], file)
            yield batch


def read_json(file: FoundFile, config: FilesConfig) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a list, of the list under `records`, or of every list in the document's object."""
    with open_bytes(file) as source:
        text = decode_whole(source.rest(), file, encoding=config.encoding)
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        truncated = error.pos >= len(text.rstrip())
        raise DataError(
            f"broken JSON: {error.msg}" + (" at the end: the file is cut short" if truncated else ""),
            code="truncated_file" if truncated else "broken_json",
            file=file.path,
            line=error.lineno,
            column=error.colno,
            remedy="write the file again, or set `format: jsonl` if each line is a value of its own",
        ) from error
    except RecursionError as error:
        raise DataError("JSON nested too deeply to read", file=file.path, remedy="flatten it") from error
    for batch in record_batches(_document_rows(document, file, config), origin=file.name):
        check_names(batch.schema.names[:-4], file)
        yield batch


def _line_rows(lines: Lines, config: FilesConfig) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line or line.isspace():
            continue
        if number in lines.broken:
            yield number, (lines.broken[number], line), len(line)
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, (f"broken JSON at column {error.colno}: {error.msg}", line), len(line)
        except RecursionError:
            yield number, ("JSON nested too deeply to read", line), len(line)
        else:
            yield number, _row(value, config, line if "\\u" in line else ""), len(line)


def _document_rows(document: Any, file: FoundFile, config: FilesConfig) -> Iterator[Row]:
    number = 0
    lists = _lists(document, file, config.records)
    for key, values in lists.items():
        for value in values:
            number += 1
            row = _row(value, config, None)
            if len(lists) > 1 and isinstance(row, dict):
                row = {**row, config.key_column: key}
            yield number, row, 200


def _lists(document: Any, file: FoundFile, records: str | None) -> dict[str, list[Any]]:
    if records is not None:
        inside = document
        for key in records.split("."):
            inside = inside.get(key) if isinstance(inside, dict) else None
        if not isinstance(inside, list):
            raise DataError(
                f"there is no list under {records!r}", file=file.path, field="records", accepted=_keys(document)
            )
        return {records: inside}
    if isinstance(document, list):
        return {"": document}
    found = (
        {key: value for key, value in document.items() if isinstance(value, list)} if isinstance(document, dict) else {}
    )
    if not found:
        raise DataError(
            "the document holds no list of rows",
            file=file.path,
            accepted="a list, or an object with a list",
            remedy=f"set `records`; the keys are: {_keys(document)}" if isinstance(document, dict) else None,
        )
    return found


def _keys(document: Any) -> str:
    return ", ".join(map(str, list(document)[:10])) if isinstance(document, dict) else "none: it is no object"


def _row(value: Any, config: FilesConfig, raw: str | None) -> dict[str, Any] | Bad:
    """Returns a row; `raw` is its text where it may hold escapes, None where the text is not kept, else empty."""
    if isinstance(value, str):
        value = {config.text_column: value}
    elif isinstance(value, list):
        names = config.columns or [f"column_{place}" for place in range(1, len(value) + 1)]
        if len(names) != len(value):
            return f"{len(value)} values, `columns` names {len(names)}", _dump(value)
        value = dict(zip(names, value, strict=True))
    if not isinstance(value, dict) or not value:
        return f"is {_kind(value)}, must be an object with keys", _dump(value)
    if raw != "" and _has_lone_surrogate(value):
        return "holds half of a surrogate pair, which is no character", _dump(value)
    return value


def _has_lone_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _kind(value: Any) -> str:
    return "an empty object" if value == {} else "null" if value is None else f"a bare {type(value).__name__}"


def _dump(value: Any) -> str:
    return json.dumps(value)  # escapes stay escapes, so that the text can be written anywhere
