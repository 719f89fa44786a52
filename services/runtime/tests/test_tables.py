"""Parquet folders: their bytes depend on the rows alone."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from espalier_runtime import tables
from espalier_runtime.tables import count_rows, iter_parts, part_files, read_parts, write_parts
from espalier_sdk.errors import DataError
from hypothesis import given, settings
from hypothesis import strategies as st

texts = st.text(alphabet="abcé ", max_size=6) | st.none()
rows = st.lists(st.tuples(st.integers(-9, 9), texts, st.lists(st.integers(0, 9), max_size=3)), max_size=60)
cuts = st.lists(st.integers(0, 60), max_size=6)
SCHEMA = pa.schema({"number": pa.int64(), "text": pa.string(), "tokens": pa.list_(pa.int32())})


def _table(data: list[tuple[int, str | None, list[int]]]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in data], schema=SCHEMA)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=60, deadline=None)
@given(rows, cuts, st.integers(1, 25), st.integers(1, 20))
def test_bytes_do_not_depend_on_how_rows_were_batched(data: list, at: list[int], per_file: int, per_group: int) -> None:
    table = _table(data)
    places = sorted({0, len(data), *(min(one, len(data)) for one in at)})
    batches = [table.slice(0, 0)] + [table.slice(one, other - one) for one, other in itertools.pairwise(places)]
    noisy = [
        pa.concat_tables([one.slice(0, 1), one.slice(1)]).replace_schema_metadata({"pandas": str(place)})
        for place, one in enumerate(batches)
    ]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(tables, "ROWS_PER_GROUP", per_group)
        whole, parts = Path(folder) / "whole", Path(folder) / "parts"
        assert write_parts([table], whole, rows_per_file=per_file) == len(data)
        assert write_parts(noisy, parts, rows_per_file=per_file) == len(data)
        assert _bytes(whole) == _bytes(parts)
        assert read_parts(whole).equals(table)
        assert count_rows(whole) == len(data)
        assert [one.num_rows for one in map(pa.parquet.read_table, part_files(whole))] == (
            [min(per_file, len(data) - start) for start in range(0, len(data), per_file)] or [0]
        )


def test_files_are_named_in_row_order(tmp_path: Path) -> None:
    assert write_parts([_table([(n, "a", []) for n in range(7)])], tmp_path, rows_per_file=3) == 7
    assert [path.name for path in part_files(tmp_path)] == [f"part-{n:05d}.parquet" for n in range(3)]
    assert read_parts(tmp_path).column("number").to_pylist() == list(range(7))
    assert [part.num_rows for part in iter_parts(tmp_path, rows=2)] == [2, 1, 2, 1, 1]


def test_an_empty_table_keeps_its_columns(tmp_path: Path) -> None:
    assert write_parts([_table([])], tmp_path) == 0
    assert read_parts(tmp_path).schema.equals(SCHEMA)


def test_a_folder_without_parts_is_one_clear_error(tmp_path: Path) -> None:
    assert write_parts([], tmp_path) == 0
    with pytest.raises(DataError, match=r"holds no part-\*\.parquet"):
        read_parts(tmp_path)


def test_a_column_that_is_null_or_absent_in_some_rows_takes_its_type_from_the_others(tmp_path: Path) -> None:
    batches = [pa.table({"a": [1], "b": pa.nulls(1)}), pa.table({"a": [2], "b": ["x"]}), pa.table({"a": [3]})]
    assert write_parts(batches, tmp_path) == 3
    assert read_parts(tmp_path).to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": "x"}, {"a": 3, "b": None}]


def test_a_later_group_may_lack_values_but_not_change_a_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 1)
    assert write_parts([pa.table({"a": [1]}), pa.table({"a": pa.nulls(1)})], tmp_path / "null") == 2
    for other in (pa.table({"a": ["x"]}), pa.table({"a": [1], "b": [2]})):
        with pytest.raises(DataError, match=r"column \w is (string|int64) in some rows and (int64|null) in others"):
            write_parts([pa.table({"a": [1]}), other], tmp_path / "bad")


def test_two_types_in_one_group_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column a is string in some rows and int64 in others"):
        write_parts([pa.table({"a": [1]}), pa.table({"a": ["x"]})], tmp_path)
