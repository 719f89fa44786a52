"""The conformance kit, and what this plugin promises beside it."""

from __future__ import annotations

import pyarrow as pa
import pytest
from espalier_sdk import DataError
from espalier_sdk.testing import check_record_transform
from espalier_shout import Shout, ShoutConfig


def test_shout_conforms_to_the_protocol_of_record_transforms() -> None:
    rows = pa.table({"text": ["one", "Zwei", None]})
    check_record_transform("shout", {"columns": ["text"]}, rows, expected=[{"text": "ONE"}, {"text": "ZWEI"}, {"text": None}])


def test_a_column_that_is_not_there_is_named_with_what_there_is() -> None:
    with pytest.raises(DataError, match="no column 'txt'.*accepted: text"):
        Shout(ShoutConfig(columns=("txt",))).apply(pa.table({"text": ["one"]}))
