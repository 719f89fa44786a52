"""A candidate tuned on Ray Tune: killed by `kill -9`, gone on with, and the best trial's model in the end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from espalier_pipeline import run
from espalier_pipeline.view import QuietView
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef

from .conftest import SPEC, write_small

TUNE = """\
    tune:
      space:
        training.learning_rate: {log_uniform: [1.0e-6, 1.0e-2]}
        training.batch_size: {choice: [8, 16]}
      trials: 4
      sampler: random
      scheduler: asha
      seed: 3
"""


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    path = write_small(tmp_path)
    text = SPEC.replace("  wide:", f"{TUNE}  wide:").replace("    tune:", "    where: {checkpoint_steps: 2}\n    tune:")
    path.write_text(text, encoding="utf-8")
    return path


def _ledger(home: Path) -> list[dict[str, Any]]:
    """Returns what the ledger of the one study says, the last line of each trial."""
    found = {}
    for path in (home / "studies").glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.endswith("}"):
                found[json.loads(line)["number"]] = json.loads(line)
    return list(found.values())


def _attempts(home: Path) -> dict[str, str]:
    """Returns the attempt that made each model."""
    store = Store.open(str(home / "store"))
    return {str(ref): store.manifest(ref).provenance["attempt"] for ref in store.refs("model")}


@pytest.mark.heavy
def test_a_study_killed_in_its_middle_goes_on_and_ends_with_the_best_trials_model(
    ray_session: dict[str, str], tuned: Path
) -> None:
    home = tuned.parent / ".espalier"
    line = [
        sys.executable,
        "-m",
        "espalier_pipeline.command",
        "run",
        str(tuned),
        "--only",
        "train",
        "--candidate",
        "tiny",
    ]
    child = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while sum(one["state"] != "running" for one in _ledger(home)) < 2:
        assert child.poll() is None, "the study ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    child.kill()
    child.wait()
    before, models = _ledger(home), _attempts(home)
    done = run(tuned, only="train", candidate="tiny", view=QuietView())
    after = _ledger(home)
    assert [one for one in after if one["number"] < 2] == [one for one in before if one["number"] < 2]
    assert models.items() <= _attempts(home).items(), "what was complete was not trained again"
    assert len(after) == 4
    assert not [one for one in after if one["state"] == "running"]
    assert all(one["losses"] for one in after)
    (told,) = done.document()["tuned"]
    store = Store.open(str(home / "store"))
    model = next(one["ref"] for one in done.stages if (one["stage"], one["name"]) == ("train", "tiny"))
    complete = [one for one in told["trials"] if one["state"] == "complete"]
    assert told["model"] == model == max(complete, key=lambda one: one["score"])["models"][0]
    what = store.manifest(ArtifactRef.parse(model)).what["training"]
    assert {path: what[path.removeprefix("training.")] for path in told["values"]} == told["values"]
    assert not list((home / "checkpoints").glob("*")), "no trial leaves a checkpoint behind"
