"""The examples that write: a language model from random weights, and one that is then taught to answer.

With fewer steps than the examples ask for: what they end with is looked at, not how well they write.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from espalier_pipeline import predict, run
from espalier_pipeline.view import QuietView

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    for name in ("language-model", "instruction-tuning"):
        shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=shutil.ignore_patterns(".espalier"))
    return tmp_path


def test_a_language_model_is_measured_by_the_likelihood_of_held_out_text(examples: Path, ray_session) -> None:
    few = ["candidates.llama.training.epochs=6"]
    spec = examples / "language-model" / "language-model.yaml"
    document = run(spec, overrides=few, candidate="llama", view=QuietView()).document()
    [llama] = document["candidates"]
    bits = llama["validation"]["bits_per_byte"]
    assert 2 < bits["low"] < bits["value"] < bits["high"] < 8  # random bytes need 8
    assert llama["validation"]["perplexity"]["value"] < 600  # a guess among all tokens has 600
    assert document["baselines"] == []
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert "Where it is right" not in page
    assert "What llama writes" not in page  # plain texts ask nothing
    begin = examples / "begin.jsonl"
    begin.write_text('{"prompt": "Water in the"}\n', encoding="utf-8")
    [row] = predict(llama["model"], begin, home=spec.parent / ".espalier")
    assert set(row) == {"prompt", "prediction"}
    assert isinstance(row["prediction"], str)


@pytest.mark.heavy
def test_a_pretrained_model_is_taught_to_answer_and_shows_what_it_writes(examples: Path, ray_session) -> None:
    few = [f"candidates.{name}.training.epochs=4" for name in ("language", "tuned")]
    spec = examples / "instruction-tuning" / "instruction-tuning.yaml"
    document = run(spec, overrides=few, candidate="tuned", view=QuietView()).document()
    assert {stage["name"] for stage in document["stages"] if stage["stage"] == "train"} == {"language", "tuned"}
    [tuned] = document["candidates"]
    assert set(tuned["validation"]) >= {"chrf", "rougeL", "token_f1", "exact_match", "bits_per_byte"}
    assert tuned["validation"]["bits_per_byte"]["value"] < 6
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert "What tuned writes" in page
    asked = examples / "asked.csv"
    asked.write_text("question\nAt what time do you open?\nHow do I store onions?\n", encoding="utf-8")
    rows = list(predict(tuned["model"], asked, home=spec.parent / ".espalier"))
    assert [row["question"] for row in rows] == ["At what time do you open?", "How do I store onions?"]
    assert all(isinstance(row["prediction"], str) for row in rows)
    assert not any("<|" in row["prediction"] for row in rows)
