"""The kit for sources: lasting parts and fingerprint, rows that say where they came from, bad ones that say why."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from espalier_sdk.columns import ERROR, LINE, ORIGIN, RAW, RESERVED_PREFIX
from espalier_sdk.testing.plugin import check_plugin

if TYPE_CHECKING:
    import pyarrow as pa

OWN = (ORIGIN, LINE, ERROR, RAW)


def check_source(name: str, config: Mapping[str, Any], *, rows: int, bad: int = 0) -> list[dict[str, Any]]:
    """Checks a source on data in which `rows` rows can be read and `bad` cannot, and returns all of them.

    Parts are JSON, and two instances give the same, with the same fingerprint. A part can be read by a pickled
    copy in another process, twice, with the same rows. Every batch has the four columns of its own; a row says its
    origin without a machine's folders and its line, which rises; a bad row has its error, and no data.
    """
    plugin = check_plugin("espalier.sources", name)
    source, again = (plugin(plugin.Config.model_validate(dict(config))) for _ in range(2))
    parts = list(source.parts())
    assert parts, f"{name}: parts() gives nothing"
    assert json.loads(json.dumps(parts)) == parts, f"{name}: parts must be JSON values"
    assert list(again.parts()) == parts, f"{name}: two instances give different parts"
    print_of = source.fingerprint()
    assert print_of is None or (isinstance(print_of, str) and print_of), f"{name}: fingerprint() is {print_of!r}"
    assert again.fingerprint() == print_of, f"{name}: two instances give different fingerprints"
    copy = pickle.loads(pickle.dumps(source))
    found: list[dict[str, Any]] = []
    for part in parts:
        read = _rows(name, copy.read(json.loads(json.dumps(part))))
        assert _rows(name, source.read(part)) == read, f"{name}: reading a part twice gives different rows"
        _check_lines(name, read)
        found += read
    wrong = [row for row in found if row[ERROR] is not None]
    assert len(wrong) == bad, f"{name}: {len(wrong)} bad rows, {bad} were expected"
    assert len(found) - len(wrong) == rows, f"{name}: {len(found) - len(wrong)} rows, {rows} were expected"
    return found


def _rows(name: str, batches: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for batch in batches:
        _check_schema(name, batch)
        found += batch.to_pylist()
    for row in found:
        assert row[ORIGIN] and not row[ORIGIN].startswith("/"), (
            f"{name}: origin {row[ORIGIN]!r} names a machine's folder"
        )
        if row[ERROR] is None:
            assert row[RAW] is None, f"{name}: a row without an error must not have {RAW}"
        else:
            data = {key: value for key, value in row.items() if key not in OWN and value is not None}
            assert row[RAW] is not None and not data, f"{name}: a bad row must have its text in {RAW} and no data"
    return found


def _check_schema(name: str, batch: pa.RecordBatch) -> None:
    import pyarrow as pa

    types = {ORIGIN: pa.string(), LINE: pa.int64(), ERROR: pa.string(), RAW: pa.string()}
    assert isinstance(batch, pa.RecordBatch), f"{name}: read() must yield record batches"
    for column, kind in types.items():
        assert column in batch.schema.names, f"{name}: a batch lacks {column}"
        assert batch.schema.field(column).type == kind, f"{name}: {column} must be {kind}"
    strange = [key for key in batch.schema.names if key.startswith(RESERVED_PREFIX) and key not in types]
    assert not strange, f"{name}: columns {', '.join(strange)} are not a source's to make"


def _check_lines(name: str, rows: list[dict[str, Any]]) -> None:
    last: dict[str, int] = {}
    for row in rows:
        origin, line = row[ORIGIN], row[LINE]
        assert line > last.get(origin, 0), f"{name}: line {line} of {origin} comes after line {last.get(origin, 0)}"
        last[origin] = line
