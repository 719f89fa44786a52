"""The transform `filter`: each condition, where it acts, and what it refuses."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from espalier_sdk.errors import DataError
from espalier_sdk.testing import check_record_transform
from espalier_transforms import Filter, FilterConfig
from pydantic import ValidationError

ROWS = pa.table(
    {
        "place": [0, 1, 2, 3, 4],
        "text": ["short", " a longer text ", None, "", "größe 10"],
        "stars": ["1", "2.5", None, " 4 ", ""],
        "open": [True, False, None, True, False],
    }
)


def kept(**columns: dict[str, Any]) -> list[int]:
    result = Filter(FilterConfig.model_validate({"columns": columns})).apply(ROWS)
    places: list[int] = result.column("place").to_pylist()
    return places


@pytest.mark.parametrize(
    ("columns", "places"),
    [
        ({"text": {"not_null": True}}, [0, 1, 4]),
        ({"text": {"not_null": False}}, [0, 1, 2, 3, 4]),
        ({"text": {"min_length": 6}}, [1, 4]),
        ({"text": {"max_length": 8}}, [0, 3, 4]),
        ({"text": {"equals": "short"}}, [0]),
        ({"text": {"equals": ["short", "größe 10"]}}, [0, 4]),
        ({"text": {"not_equals": "short"}}, [1, 2, 3, 4]),
        ({"text": {"matches": r"\d+$"}}, [4]),
        ({"text": {"not_matches": "o"}}, [2, 3, 4]),
        ({"stars": {"at_least": 2}}, [1, 3]),
        ({"stars": {"at_most": 2.5}}, [0, 1]),
        ({"place": {"at_least": 1, "at_most": 3}}, [1, 2, 3]),
        ({"place": {"equals": [1, 4]}}, [1, 4]),
        ({"open": {"equals": True}}, [0, 3]),
        ({"text": {"min_length": 1}, "open": {"equals": False}}, [1, 4]),
    ],
)
def test_rows_that_meet_all_conditions_stay(columns: dict[str, Any], places: list[int]) -> None:
    assert kept(**columns) == places


def test_filter_passes_its_kit() -> None:
    expected = [row for row in ROWS.to_pylist() if row["place"] in (1, 4)]
    check_record_transform("filter", {"columns": {"text": {"min_length": 6}}}, ROWS, expected=expected)


def test_a_filter_acts_everywhere_or_where_it_is_said() -> None:
    condition = {"columns": {"text": {"not_null": True}}}
    assert Filter(FilterConfig.model_validate(condition)).splits == {"train", "validation", "test"}
    assert Filter(FilterConfig.model_validate(condition | {"splits": ["train"]})).splits == {"train"}


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"txt": {"not_null": True}}, "no column 'txt'.*did you mean 'text'"),
        ({"text": {"at_least": 3}}, "column 'text' is compared with a number"),
        ({"text": {"matches": "(?=a)"}}, "look-around"),
    ],
)
def test_a_condition_that_cannot_be_asked_is_refused(columns: dict[str, Any], what: str) -> None:
    with pytest.raises(DataError, match=what):
        kept(**columns)


@pytest.mark.parametrize(
    "config",
    [
        {"columns": {}},
        {"columns": {"text": {}}},
        {"columns": {"text": {"matches": "("}}},
        {"columns": {"a": {"not_null": True}}, "splits": ["dev"]},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FilterConfig.model_validate(config)
