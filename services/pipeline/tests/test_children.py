"""A child's log, where the disk does not take it."""

from __future__ import annotations

from pathlib import Path

import pytest
from espalier_pipeline.children import run_child
from espalier_pipeline.openings import count_opening
from espalier_sdk.errors import DataError


def test_a_log_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    with pytest.raises(DataError) as raised:
        run_child("json.tool", [], log=tmp_path / "logs" / "x.log", environment={}, on_event=lambda event: None)
    assert raised.value.problems[0].remedy


def test_an_opening_that_cannot_be_noted_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        count_opening(tmp_path / "absent", dataset="d", models=["m"], run="r")
    assert raised.value.problems[0].file == str(tmp_path / "absent" / "test-openings.jsonl")
