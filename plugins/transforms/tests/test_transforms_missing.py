"""The transform `missing`: each policy, what it learns, and what it refuses."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from espalier_sdk.errors import DataError
from espalier_sdk.testing import check_fitted_transform
from espalier_transforms import Missing, MissingConfig
from pydantic import ValidationError

ROWS = pa.table(
    {
        "text": ["a", None, "  ", "b", "b"],
        "stars": ["1", "2", "", None, "4"],
        "age": pa.array([10, None, 20, 31, None], pa.int64()),
        "score": [0.1, float("nan"), 0.2, 0.3, None],
    }
)


def filled(policy: Any, column: str) -> list[Any]:
    transform = Missing(MissingConfig.model_validate({"columns": {column: policy}}))
    state = transform.finish(transform.observe(ROWS))
    values: list[Any] = transform.apply(ROWS, state=state).column(column).to_pylist()
    return values


@pytest.mark.parametrize(
    ("column", "policy", "values"),
    [
        ("text", "drop", ["a", "b", "b"]),
        ("text", {"constant": "none"}, ["a", "none", "none", "b", "b"]),
        ("text", "most-frequent", ["a", "b", "b", "b", "b"]),
        ("stars", "median", ["1", "2", "2", "2", "4"]),
        ("stars", "mean", ["1", "2", str(7 / 3), str(7 / 3), "4"]),
        ("stars", {"constant": 3}, ["1", "2", "3", "3", "4"]),
        ("age", "mean", [10.0, 61 / 3, 20.0, 31.0, 61 / 3]),
        ("age", "median", [10, 20, 20, 31, 20]),
        ("age", {"constant": 0}, [10, 0, 20, 31, 0]),
        ("score", "median", [0.1, 0.2, 0.2, 0.3, 0.2]),
        ("score", "drop", [0.1, 0.2, 0.3]),
    ],
)
def test_a_policy_fills_or_drops(column: str, policy: Any, values: list[Any]) -> None:
    assert filled(policy, column) == values


def test_of_equally_frequent_values_the_first_in_order_is_taken() -> None:
    transform = Missing(MissingConfig.model_validate({"columns": {"t": "most-frequent"}}))
    rows = pa.table({"t": ["b", "a", None]})
    assert transform.finish(transform.observe(rows)).fills == {"t": "a"}


def test_missing_passes_its_kit() -> None:
    config = {"columns": {"text": "most-frequent", "stars": "median", "age": "mean", "score": {"constant": 1.5}}}
    state = check_fitted_transform(
        "missing",
        config,
        ROWS,
        expected=[
            {"text": "a", "stars": "1", "age": 10.0, "score": 0.1},
            {"text": "b", "stars": "2", "age": 61 / 3, "score": 1.5},
            {"text": "b", "stars": "2", "age": 20.0, "score": 0.2},
            {"text": "b", "stars": "2", "age": 31.0, "score": 0.3},
            {"text": "b", "stars": "4", "age": 61 / 3, "score": 1.5},
        ],
    )
    assert state.seen == {}


def test_a_mean_does_not_depend_on_the_order_of_adding() -> None:
    transform = Missing(MissingConfig.model_validate({"columns": {"x": "mean"}}))
    values = [1e16, 1.0, -1e16, 1e-9, 3.0]
    means = set()
    for order in (values, values[::-1], sorted(values)):
        parts = [transform.observe(pa.table({"x": [value]})) for value in order]
        seen = parts[0]
        for part in parts[1:]:
            seen = transform.combine(seen, part)
        means.add(transform.finish(seen).fills["x"])
    assert len(means) == 1


@pytest.mark.parametrize(
    ("column", "policy", "what"),
    [
        ("text", "error", "2 missing values of 5 rows"),
        ("text", "mean", "column 'text' needs numbers"),
        ("age", {"constant": "old"}, "'old' is not"),
    ],
)
def test_a_policy_that_cannot_be_kept_is_refused(column: str, policy: Any, what: str) -> None:
    with pytest.raises(DataError, match=what):
        filled(policy, column)


def test_a_column_without_any_value_has_nothing_to_learn_from() -> None:
    transform = Missing(MissingConfig.model_validate({"columns": {"x": "median"}}))
    with pytest.raises(DataError, match="no value in the train split"):
        transform.finish(transform.observe(pa.table({"x": pa.array([None], pa.float64())})))


def test_a_column_that_is_absent_at_serving_is_left_alone() -> None:
    transform = Missing(MissingConfig.model_validate({"columns": {"x": "drop", "y": "error"}}))
    rows = pa.table({"text": ["a"]})
    assert transform.apply(rows, state=transform.finish(transform.observe(rows))).equals(rows)


@pytest.mark.parametrize(
    ("column", "policy", "value", "kind"),
    [
        ("text", "most-frequent", "b", pa.string()),
        ("stars", {"constant": 3}, 3, pa.int64()),
        ("age", "mean", 61 / 3, pa.float64()),
        ("age", "most-frequent", 10, pa.int64()),
        ("score", "most-frequent", 0.1, pa.float64()),
    ],
)
def test_a_column_that_is_absent_or_null_in_every_row_is_filled_in_every_row(
    column: str, policy: Any, value: Any, kind: pa.DataType
) -> None:
    transform = Missing(MissingConfig.model_validate({"columns": {column: policy}}))
    state = transform.State.model_validate_json(transform.finish(transform.observe(ROWS)).model_dump_json())
    null, bare = pa.table({"id": [7, 8], column: pa.nulls(2)}), pa.table({"id": [7, 8]})
    result = transform.apply(null, state=state)
    assert result.column(column).to_pylist() == [value, value]
    assert result.schema.field(column).type == kind
    assert transform.apply(bare, state=state).equals(result)
    assert transform.apply(bare.slice(0, 0), state=state).schema == result.schema


@pytest.mark.parametrize(
    ("train", "policy", "given", "values"),
    [
        ([2.0, 2.0, 3.5], "most-frequent", [1, None], [1, 2]),
        ([2.5, 2.5, 3.5], "most-frequent", [1, None], [1.0, 2.5]),
        (["2.0", "2.0", "3.5"], "most-frequent", [1, None], [1, 2]),
        ([2, 2, 3], "most-frequent", [1.5, None], [1.5, 2.0]),
        ([2, 2, 3], "most-frequent", ["1", None], ["1", "2"]),
        ([2.0, 2.0, 3.5], "most-frequent", ["1", None], ["1", "2"]),
        ([True, True, False], "most-frequent", [False, None], [False, True]),
        ([2, 3], "median", [1, None], [1.0, 2.5]),
    ],
)
def test_a_fill_fits_the_kind_of_number_that_rows_hold_later(
    train: list[Any], policy: str, given: list[Any], values: list[Any]
) -> None:
    transform = Missing(MissingConfig.model_validate({"columns": {"x": policy}}))
    state = transform.finish(transform.observe(pa.table({"x": train})))
    filled = transform.apply(pa.table({"x": given}), state=state).column("x").to_pylist()
    assert repr(filled) == repr(values)


@pytest.mark.parametrize("columns", [{}, {"x": "guess"}, {"x": {"constant": None}}, {"x": {"fill": 1}}])
def test_a_config_that_makes_no_sense_is_refused(columns: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MissingConfig.model_validate({"columns": columns})
