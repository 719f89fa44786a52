"""One schema for several files, ids of rows, and the profile of columns."""

from __future__ import annotations

import pyarrow as pa
import pytest
from espalier_ingestion.profiling import Profile
from espalier_ingestion.unifying import as_text, conform, misfits, mixed_columns, row_ids, unify
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


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([2**53 + 1]), pa.array([0.5])),
        (pa.array([-1]), pa.array([2**63], pa.uint64())),
        (pa.array([10**17], pa.timestamp("us")), pa.array([1], pa.timestamp("ns"))),
        (pa.array([b"\xff\x00"]), pa.array([1])),
    ],
    ids=["integers above 2**53 with floats", "negative with unsigned", "far times", "bytes with numbers"],
)
def test_values_that_the_common_type_cannot_hold_become_text(first: pa.Array, second: pa.Array) -> None:
    tables = [pa.table({"a": values, ORIGIN: ["f"], LINE: pa.array([1], pa.int64())}) for values in (first, second)]
    schemas = [table.schema for table in tables]
    schema, _ = unify(schemas)
    names = {name for table in tables for name in misfits(table, schema, mixed_columns(schemas, schema))}
    schema, notes = as_text(schema, sorted(names))
    kept = [conform(table, schema).column("a").to_pylist()[0] for table in tables]
    if names:
        assert "'a'" in notes[0]
    assert schema.field("a").type == pa.string()
    assert len(set(kept)) == 2
    assert all(isinstance(value, str) for value in kept)


def test_values_that_fit_keep_the_common_type() -> None:
    tables = [pa.table({"a": [1, 2]}), pa.table({"a": [0.5]})]
    schemas = [table.schema for table in tables]
    schema, _ = unify(schemas)
    assert mixed_columns(schemas, schema) == ["a"]
    assert [misfits(table, schema, ["a"]) for table in tables] == [[], []]
    assert mixed_columns(schemas[:1], schemas[0]) == []
