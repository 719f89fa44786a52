"""Pre-training on plain texts and fine-tuning from it, in one spec."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from espalier_pipeline import predict, run
from espalier_pipeline.view import QuietView

FILL = {"name": "fill-mask", "config": {"text": "text"}}


@pytest.mark.heavy
def test_an_encoder_is_pre_trained_and_another_candidate_starts_from_it(small: Path, ray_session) -> None:
    spec = yaml.safe_load(small.read_text(encoding="utf-8"))
    tiny = spec["candidates"]["tiny"]
    longer = tiny["training"] | {"epochs": 12}
    spec["candidates"] = {
        "pages": tiny | {"task": FILL, "learner": "masked", "competes": False},
        "triage": {"strategy": "full-finetune", "base": {"from": "pages"}, "training": longer},
    }
    del spec["serve"]
    small.write_text(yaml.safe_dump(spec), encoding="utf-8")
    document = run(small, view=QuietView()).document()
    trained = {stage["name"]: stage["ref"] for stage in document["stages"] if stage["stage"] == "train"}
    assert list(trained) == ["pages", "triage"]
    assert [one["name"] for one in document["candidates"]] == ["triage"]
    assert document["candidates"][0]["validation"]["macro_f1"]["value"] > 0.8
    assert document["forgetting"].keys() == {"triage"}
    assert -1 <= document["forgetting"]["triage"]["rank_correlation"] < 0.999
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert "What is left of the base" in page
    assert "rank correlation" in page
    asked = small.parent / "asked.jsonl"
    asked.write_text('{"masked": "rose spade [MASK] soil"}\n', encoding="utf-8")
    [row] = predict(trained["pages"], asked, home=small.parent / ".espalier")
    assert row["prediction"] == f"rose spade {row['fills'][0][0]['text']} soil"
    assert len(row["fills"][0]) == 5


@pytest.mark.heavy
def test_filled_gaps_of_held_out_texts_are_counted(small: Path, ray_session) -> None:
    spec = yaml.safe_load(small.read_text(encoding="utf-8"))
    spec["objective"] = {"task": FILL, "metric": "masked_accuracy"}
    spec["candidates"] = {"pages": spec["candidates"]["tiny"] | {"learner": "masked"}}
    spec["evaluate"] |= {"metrics": ["masked-accuracy", "perplexity"]}
    del spec["serve"]
    small.write_text(yaml.safe_dump(spec), encoding="utf-8")
    [pages] = run(small, view=QuietView()).document()["candidates"]
    measured = pages["validation"]["masked_accuracy"]
    assert 0 <= measured["low"] <= measured["value"] <= measured["high"] <= 1
    assert measured["error"] > 0
