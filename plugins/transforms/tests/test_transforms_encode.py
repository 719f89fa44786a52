"""The transform `encode`: what it learns, the vector it writes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from espalier_sdk.errors import DataError
from espalier_sdk.testing import check_fitted_transform
from espalier_transforms import Encode, EncodeConfig
from pydantic import ValidationError

ROWS = pa.table(
    {
        "text": ["a", "b", "c", "d", "e"],
        "files": ["0", "4", " ", None, "2"],
        "hours": [1.0, 3.0, 5.0, 3.0, 3.0],
        "priority": ["high", "low", "low", " high ", "odd"],
    }
)
CONFIG: dict[str, Any] = {"numeric": ["files", "hours"], "categorical": ["priority"]}


def made(rows: pa.Table = ROWS, **config: Any) -> tuple[Encode, Any]:
    encode = Encode(EncodeConfig.model_validate(config or CONFIG))
    return encode, encode.finish(encode.observe(rows))


def vectors(rows: pa.Table, fitted: tuple[Encode, Any] | None = None) -> list[list[float]]:
    encode, state = fitted or made()
    values: list[list[float]] = encode.apply(rows, state=state).column("side").to_pylist()
    return values


def test_encode_passes_its_kit() -> None:
    state = check_fitted_transform("encode", CONFIG, ROWS, expected=ROWS.to_pylist())
    assert state.seen == {}
    assert state.categorical["priority"].categories == ("high", "low")


def test_numbers_are_standardised_and_missing_ones_are_the_median_with_a_flag() -> None:
    found = vectors(ROWS)
    spread = (8 / 3) ** 0.5  # of 0, 4 and 2, as numpy's std has it
    assert [row[0] for row in found] == pytest.approx([-2 / spread, 2 / spread, 0, 0, 0])
    assert [row[1] for row in found] == [0, 0, 1, 1, 0]
    assert [row[2] for row in found] == pytest.approx([-2 / 1.6**0.5, 0, 2 / 1.6**0.5, 0, 0])


def test_categories_have_places_and_the_rare_share_one() -> None:
    assert [row[3:] for row in vectors(ROWS)] == [[1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_every_row_has_one_width_whatever_is_missing_at_serving() -> None:
    asked = pa.Table.from_pylist([{"text": "x"}, {"text": "y"}])
    null = asked.append_column("files", pa.nulls(2)).append_column("priority", pa.nulls(2))
    wanted = [0, 1, 0, 0, 0, 1]
    assert vectors(asked) == vectors(null) == [wanted, wanted]


def test_what_train_never_had_is_all_zeros() -> None:
    full = pa.table({"files": [0.0, 2.0, 4.0, 6.0], "priority": ["a", "a", "b", "b"]})
    fitted = made(full, numeric=["files"], categorical=["priority"])
    asked = pa.table({"files": pa.array([None], pa.float64()), "priority": ["new"]})
    assert vectors(asked, fitted) == [[0, 0, 0]]


def test_only_the_most_frequent_categories_have_a_place() -> None:
    rows = pa.table({"c": ["a"] * 2 + ["b"] * 4 + ["c"] * 3})
    _, state = made(rows, categorical=["c"], maximum_categories=2)
    assert (state.categorical["c"].categories, state.categorical["c"].other) == (("b", "c"), True)


def test_whole_numbers_and_booleans_are_categories_by_their_text() -> None:
    fitted = made(pa.table({"c": [1, 1, 2, 2]}), categorical=["c"])
    assert vectors(pa.table({"c": ["2", "1"]}), fitted) == [[0, 1], [1, 0]]


def test_a_constant_number_is_zero() -> None:
    rows = pa.table({"x": [7.0, 7.0, 7.0]})
    assert vectors(rows, made(rows, numeric=["x"])) == [[0.0]] * 3


def test_text_that_says_nan_is_missing() -> None:
    fitted = made(pa.table({"x": ["1", "nan", "3"]}), numeric=["x"])
    assert vectors(pa.table({"x": ["NaN", "2"]}), fitted) == [[0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (["1", "many"], "'x' needs numbers"),
        ([1.0, float("inf")], "1 infinite"),
        ([None, None], "no value in the train"),
    ],
)
def test_a_column_of_numbers_that_is_none_is_refused(values: list[Any], what: str) -> None:
    with pytest.raises(DataError, match=what):
        made(pa.table({"x": values}), numeric=["x"])


def test_an_infinite_number_is_refused_when_it_comes_later_too() -> None:
    with pytest.raises(DataError, match="1 infinite"):
        vectors(ROWS.slice(0, 1).drop_columns(["hours"]).append_column("hours", pa.array([float("inf")])))


def test_a_column_of_the_vectors_name_is_not_written_over() -> None:
    with pytest.raises(DataError, match="a column 'side' already"):
        vectors(ROWS.append_column("side", pa.nulls(5)))


@pytest.mark.parametrize(
    "config",
    [{}, {"numeric": ["a"], "categorical": ["a"]}, {"numeric": ["side"]}, {"numeric": ["a"], "minimum_count": 0}],
)
def test_a_config_that_makes_no_sense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EncodeConfig.model_validate(config)
