"""One schema for several files, ids of rows, and the profile of columns."""

from __future__ import annotations

import pyarrow as pa
import pytest
from espalier_ingestion.profiling import Profile
from espalier_ingestion.unifying import conform, row_ids, unify
from espalier_sdk.columns import ID, LINE, ORIGIN
from espalier_sdk.errors import DataError


def with_place(**columns: list[object]) -> pa.Table:
    count = len(next(iter(columns.values())))
    return pa.table({**columns, ORIGIN: ["a.csv"] * count, LINE: list(range(1, count + 1))})


def test_columns_come_in_order_of_appearance_and_absent_ones_are_null() -> None:
    first, second = with_place(text=["a"], n=[1]), with_place(more=["x"], text=["b"])
    schema, notes = unify([first.schema, second.schema])
    assert schema.names == ["text", "n", "more"] and notes == []
    assert conform(second, schema).select(["text", "n", "more"]).to_pylist() == [{"text": "b", "n": None, "more": "x"}]


def test_numbers_widen_and_other_conflicts_become_text_with_a_note() -> None:
    tables = [
        with_place(n=[1], t=[1], d=[{"a": 1}]),
        with_place(n=[1.5], t=["x"], d=["y"]),
        with_place(n=[None], t=[True], d=[[2]]),
    ]
    schema, notes = unify([table.schema for table in tables])
    assert [str(field.type) for field in schema] == ["double", "string", "string"]
    assert len(notes) == 2 and "'t' holds int64, string, bool" in notes[0]
    rows = [row for table in tables for row in conform(table, schema).select(schema.names).to_pylist()]
    assert [row["t"] for row in rows] == ["1", "x", "true"]
    assert [row["d"] for row in rows] == ['{"a": 1}', "y", "[2]"]


def test_a_column_without_any_value_is_text_and_dictionaries_are_read() -> None:
    coded = pa.table({"c": pa.array(["x"]).dictionary_encode(), "e": pa.nulls(1), ORIGIN: ["f"], LINE: [1]})
    schema, _ = unify([coded.schema])
    assert [str(field.type) for field in schema] == ["string", "string"]
    assert conform(coded, schema).column("c").to_pylist() == ["x"]


def test_equal_rows_have_equal_ids_wherever_they_stand_and_whatever_other_files_add() -> None:
    narrow = with_place(text=["a", "a", "b"])
    wide, _ = unify([narrow.schema, with_place(more=["x"]).schema])
    ids = conform(narrow, wide).column(ID).to_pylist()
    assert ids[0] == ids[1] != ids[2] and all(len(one) == 32 for one in ids)
    assert row_ids(pa.table({"text": ["a"]})) == [ids[0]]


def test_a_reserved_name_is_refused() -> None:
    with pytest.raises(DataError, match="Espalier's own"):
        unify([pa.schema([("espalier_id", pa.string())])])


def test_the_profile_counts_nulls_distinct_values_and_lengths_over_all_batches() -> None:
    batches = [pa.table({"t": ["ab", None], "n": [1, 1]}), pa.table({"t": ["abcd", "ab"], "n": [2, 3]})]
    profile = Profile(batches[0].schema)
    for batch in batches:
        profile.add(batch)
    found = profile.to_json()
    assert found["t"] == {
        "type": "string",
        "nulls": 1,
        "distinct": 2,
        "distinct_is_more": False,
        "length": {"least": 2, "mean": 2.7, "most": 4},
    }
    assert found["n"]["distinct"] == 3


def test_distinct_values_are_counted_up_to_a_thousand() -> None:
    rows = pa.table({"n": list(range(1500))})
    profile = Profile(rows.schema)
    profile.add(rows)
    assert profile.to_json()["n"] | {"type": ""} == {"type": "", "nulls": 0, "distinct": 1000, "distinct_is_more": True}
