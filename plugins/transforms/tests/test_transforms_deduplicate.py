"""The keys of `deduplicate`, without Ray; the whole of it is tested on Ray in tests/integration/data."""

from __future__ import annotations

import pyarrow as pa
from espalier_sdk.testing import check_plugin
from espalier_transforms.deduplicate import row_keys


def keys(*columns: list[object], normalise: bool = False) -> list[bytes]:
    return row_keys([pa.chunked_array([pa.array(column)]) for column in columns], normalise=normalise)


def test_deduplicate_is_a_sound_plugin() -> None:
    assert check_plugin("espalier.transforms", "deduplicate").kind == "corpus"


def test_equal_rows_have_equal_keys_and_others_do_not() -> None:
    same, again, other = keys(["a", "a", "a"], [1, 1, 2])
    assert same == again != other


def test_values_do_not_run_into_each_other_and_null_is_not_empty() -> None:
    assert len(set(keys(["ab", "a", "", None], ["c", "bc", "x", "x"]))) == 4


def test_rows_that_say_nothing_are_no_repetitions_of_each_other() -> None:
    assert keys(["", None, " \n"], [None, None, ""]) == [None, None, None]
    assert keys([""], [0]) != [None]


def test_case_and_white_space_make_a_difference_unless_normalised() -> None:
    texts = ["Hello  World", "hello world ", "HELLO\nWORLD"]
    assert len(set(keys(texts))) == 3
    assert len(set(keys(texts, normalise=True))) == 1
