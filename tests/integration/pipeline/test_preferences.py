"""The example that learns from preferences, with fewer steps than it asks for: answers, pairs, a judge, a policy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from espalier_pipeline import run
from espalier_pipeline.learning import history, series
from espalier_pipeline.view import QuietView
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "preferences"


@pytest.mark.heavy
def test_answers_pairs_and_a_judged_policy_are_one_spec_whose_candidates_are_measured_alike(
    tmp_path: Path, ray_session
) -> None:
    folder = tmp_path / "preferences"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".espalier"))
    few = ["candidates.answers.training.epochs=4", "candidates.preferred.training.epochs=2"]
    few += ["candidates.judge.training.epochs=2", "candidates.policy.training.max_steps=4"]
    document = run(folder / "preferences.yaml", overrides=few, view=QuietView()).document()
    measured = {one["name"]: one for one in document["candidates"]}
    assert set(measured) == {"answers", "preferred", "policy"}
    assert measured["preferred"]["trainable_parameters"] < 0.1 * measured["answers"]["trainable_parameters"]
    assert len({json.dumps(sorted(one["validation"])) for one in measured.values()}) == 1
    assert 0 <= measured["policy"]["validation"]["preference_accuracy"]["value"] <= 1
    store = Store.open(str(folder / ".espalier" / "store"))
    told = history(store, measured["preferred"]["model"])
    margins = [value for _, value in series(told, "eval_rewards/margins")]
    assert 0 < margins[0] < margins[-1]
    assert series(told, "eval_rewards/accuracies")[-1][1] > 0.7
    models = {one["name"]: one["ref"] for one in document["stages"] if one["stage"] == "train"}
    assert series(history(store, models["judge"]), "eval_accuracy")[-1][1] > 0.7
    judged = {str(ref) for ref in store.manifest(ArtifactRef.parse(models["policy"])).inputs}
    assert {models["answers"], models["judge"]} < judged
    assert series(history(store, models["policy"]), "kl")[0][1] == pytest.approx(0.0, abs=1e-3)
    page = Path(document["report"]).read_text(encoding="utf-8")
    for name in ("preferred", "judge", "policy"):
        assert f"{name}: what its learner logged beside the loss" in page
    for signal in ("margins", "entropy", "answer_tokens"):
        assert signal in page
