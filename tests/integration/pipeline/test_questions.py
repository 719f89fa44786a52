"""The example of question answering, cut to a few steps: from its file to answers for the rows of another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from espalier_pipeline import predict, run
from espalier_pipeline.reading import check
from espalier_pipeline.view import QuietView

EXAMPLE = Path(__file__).parents[3] / "examples" / "question-answering"


@pytest.mark.heavy
def test_the_example_is_checked_trained_measured_and_answers_with_pieces_of_the_context(
    ray_session: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)
    spec = folder / "question-answering.yaml"
    assert set(check(spec).candidates) == {"full", "lora"}
    short = ["candidates.lora.training.max_steps=4", "candidates.lora.training.validations=1", "evaluate.resamples=100"]
    document = run(spec, candidate="lora", overrides=short, view=QuietView()).document()
    found = document["candidates"][0]["validation"]
    assert 0 <= found["squad_exact_match"]["value"] <= found["squad_f1"]["value"] <= 1
    assert document["baselines"] == []
    assert Path(document["report"]).is_file()
    asked = tmp_path / "asked.jsonl"
    context = "The tower has 312 steps. " * 30  # longer than a window
    asked.write_text(json.dumps({"question": "How many steps?", "context": context}) + "\n", encoding="utf-8")
    (row,) = predict(document["candidates"][0]["model"], asked, home=folder / ".espalier")
    assert row["prediction"]
    assert context[row["start"] : row["end"]] == row["prediction"]
