"""The example that learns from preferences: answers first, then pairs, with fewer steps than it asks for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from espalier_pipeline import run
from espalier_pipeline.learning import history, series
from espalier_pipeline.view import QuietView
from espalier_runtime.store import Store

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "preferences"


@pytest.mark.heavy
def test_a_model_that_answers_learns_from_pairs_and_both_are_measured_alike(tmp_path: Path, ray_session) -> None:
    folder = tmp_path / "preferences"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".espalier"))
    few = ["candidates.answers.training.epochs=4", "candidates.preferred.training.epochs=2"]
    document = run(folder / "preferences.yaml", overrides=few, view=QuietView()).document()
    measured = {one["name"]: one for one in document["candidates"]}
    assert set(measured) == {"answers", "preferred"}
    assert measured["preferred"]["trainable_parameters"] < 0.1 * measured["answers"]["trainable_parameters"]
    assert len({json.dumps(sorted(one["validation"])) for one in measured.values()}) == 1
    told = history(Store.open(str(folder / ".espalier" / "store")), measured["preferred"]["model"])
    margins = [value for _, value in series(told, "eval_rewards/margins")]
    assert 0 < margins[0] < margins[-1]
    assert series(told, "eval_rewards/accuracies")[-1][1] > 0.7
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert "preferred: what its learner logged beside the loss" in page
    assert "margins" in page
