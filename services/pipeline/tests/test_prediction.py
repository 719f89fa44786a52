"""`predict`: all rows or none in a file, and no column of the user's written over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from espalier_pipeline import prediction
from espalier_pipeline.command import run as command
from espalier_runtime import opening
from espalier_runtime.card import CARD
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef
from espalier_sdk.errors import DataError


class Echo:
    """A model that answers every row alike."""

    def predict(self, rows: pa.Table) -> pa.Table:
        count = rows.num_rows
        answers = {"prediction": ["a"] * count, "score": [1.0] * count, "scores": [[1.0, 0.0]] * count}
        return pa.table({"row": range(count), **answers})


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    attempt = Store.open(str(tmp_path / "store")).begin("ab" * 32)
    task = {"name": "classification", "config": {"text": "text", "target": "label"}}
    (attempt.folder / CARD).write_text(json.dumps({"task": task, "state": {"labels": ["a", "b"]}}))
    ref: ArtifactRef = attempt.publish(kind="model", name="tiny").ref()
    monkeypatch.setattr(opening, "open_model", lambda *arguments: Echo())
    return str(ref)


def asked(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_answers_are_written_whole_and_told(model: str, tmp_path: Path, capsys) -> None:
    file, out = asked(tmp_path, {"text": "hello"}), tmp_path / "out.jsonl"
    assert command(["predict", model, str(file), "--home", str(tmp_path), "--out", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"out": str(out), "rows": 1}
    assert f"next             espalier show {model} --home {tmp_path}" in printed.err
    answer = {"prediction": "a", "score": 1.0, "scores": {"a": 1.0, "b": 0.0}}
    assert json.loads(out.read_text()) == {"text": "hello", **answer}


def test_json_without_out_is_one_document(model: str, tmp_path: Path, capsys) -> None:
    file = asked(tmp_path, {"text": "hello"}, {"text": "bye"})
    assert command(["predict", model, str(file), "--home", str(tmp_path), "--json"]) == 0
    assert [row["text"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["hello", "bye"]


def test_a_failure_in_the_middle_leaves_what_was_there(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> Iterator[dict[str, Any]]:
        yield {"text": "hello"}
        raise DataError("row cannot be read")

    monkeypatch.setattr(prediction, "predict", fail)
    file, out = asked(tmp_path, {"text": "hello"}), tmp_path / "out.jsonl"
    out.write_text("kept")
    assert command(["predict", model, str(file), "--home", str(tmp_path), "--out", str(out)]) == 4
    assert out.read_text() == "kept"
    assert not list(tmp_path.glob("*.part"))


def test_the_file_that_is_read_is_never_written(model: str, tmp_path: Path) -> None:
    file = asked(tmp_path, {"text": "hello"})
    before = file.read_text()
    assert command(["predict", model, str(file), "--home", str(tmp_path), "--out", str(file)]) == 2
    assert file.read_text() == before


def test_a_column_that_an_answer_has_too_is_refused(model: str, tmp_path: Path, capsys) -> None:
    file = asked(tmp_path, {"text": "hello", "score": 3})
    assert command(["predict", model, str(file), "--home", str(tmp_path)]) == 4
    assert "written over column 'score'" in capsys.readouterr().err


def test_below_a_score_no_prediction_is_given(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Scored:
        def predict(self, rows: pa.Table) -> pa.Table:
            return pa.table({"row": [0, 1], "prediction": ["a", "b"], "score": [0.6, 0.8]})

    monkeypatch.setattr(opening, "open_model", lambda *arguments: Scored())
    file = asked(tmp_path, {"text": "hello"}, {"text": "bye"})
    rows = list(prediction.predict(model, file, abstain_below=0.8, home=tmp_path))
    assert [(row["prediction"], row["score"]) for row in rows] == [(None, 0.6), ("b", 0.8)]


def test_a_model_without_scores_cannot_abstain(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    class Numbers:
        def predict(self, rows: pa.Table) -> pa.Table:
            return pa.table({"row": [0], "prediction": [2.5]})

    monkeypatch.setattr(opening, "open_model", lambda *arguments: Numbers())
    file = asked(tmp_path, {"text": "hello"})
    assert command(["predict", model, str(file), "--home", str(tmp_path), "--abstain-below", "0.5"]) == 2
    assert "have no score to abstain by" in capsys.readouterr().err


def test_a_file_that_the_model_cannot_read_is_told_before_the_model_is_opened(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(opening, "open_model", lambda *arguments: pytest.fail("the model was opened"))
    file = asked(tmp_path, {"message": "hello"})
    file.write_text(file.read_text() + "{broken\n")
    assert command(["predict", model, str(file), "--home", str(tmp_path)]) == 4
    assert f"{file}:2: row cannot be read" in capsys.readouterr().err
    file = asked(tmp_path, {"message": "hello", "day": 3})
    assert command(["predict", model, str(file), "--home", str(tmp_path)]) == 4
    told = capsys.readouterr().err
    assert f"error: {file}: the model reads column 'text'; the file has columns 'message', 'day'" in told
    assert "accepted" not in told
