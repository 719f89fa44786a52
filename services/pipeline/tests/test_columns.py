"""Columns that are asked for, compared with those of data whose files and rows differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from espalier_pipeline import columns
from espalier_pipeline.columns import check_columns
from espalier_sdk.errors import SpecError


def with_paths(spec: Path, *names: str) -> None:
    spec.write_text(spec.read_text().replace("[mails.csv]", json.dumps(list(names))))


def test_a_column_of_the_second_file_is_seen(spec: Path) -> None:
    (spec.parent / "a.jsonl").write_text('{"text": "hello"}\n')
    (spec.parent / "b.jsonl").write_text('{"text": "bye", "label": "a"}\n')
    with_paths(spec, "a.jsonl", "b.jsonl")
    assert check_columns(spec) == []


def late(spec: Path, rows: int) -> None:
    """Writes JSON lines of which only the last one has a label."""
    lines = [json.dumps({"text": "hello"})] * rows + [json.dumps({"text": "bye", "label": "a"})]
    (spec.parent / "late.jsonl").write_text("\n".join(lines) + "\n")
    with_paths(spec, "late.jsonl")


def test_a_key_that_comes_late_is_found_by_reading_on(spec: Path) -> None:
    late(spec, 25_000)
    assert check_columns(spec) == []


def test_a_key_that_may_come_still_later_is_a_note_and_no_error(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_LATER_BATCHES", 1)
    late(spec, 25_000)
    (note,) = check_columns(spec)
    assert "no column 'label'" in note
    assert "a later one may have it" in note


def test_a_column_that_no_row_has_is_an_error_also_in_a_long_file(spec: Path) -> None:
    rows = "\n".join(f"hello {number},a" for number in range(25_000))
    (spec.parent / "mails.csv").write_text(f"text,lable\n{rows}\n")
    with pytest.raises(SpecError, match=r"no column 'label'.*did you mean 'lable'"):
        check_columns(spec)


def test_a_column_that_a_transform_names_has_its_place(spec: Path) -> None:
    text = spec.read_text().replace(
        "    split:", "    transforms: [{name: clean, config: {columns: [nope]}}]\n    split:"
    )
    spec.write_text(text)
    with pytest.raises(SpecError, match="no column 'nope'") as raised:
        check_columns(spec)
    problem = raised.value.problems[0]
    assert (problem.line, problem.field) == (6, "data.mails.transforms.0.config.columns")
