"""Several workers: the same answer as one, on real processes with DDP."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from espalier_pipeline import run
from espalier_pipeline.view import QuietView
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef
from safetensors.numpy import load_file


def test_two_workers_learn_the_same_weights_as_one(prepared: Path) -> None:
    quiet = ["candidates.tiny.strategy.config.dropout=0.0", "candidates.tiny.where.cpus_per_worker=1"]
    # Whole batches alone: the last one of an epoch is filled up when it does not divide among workers.
    quiet.append("candidates.tiny.training.max_steps=4")
    weights, losses = [], []
    for workers in (1, 2):
        overrides = [*quiet, f"candidates.tiny.where.workers={workers}"]
        result = run(prepared, only="train", candidate="tiny", overrides=overrides, view=QuietView())
        ref = ArtifactRef.parse(next(stage["ref"] for stage in result.stages if stage["stage"] == "train"))
        store = Store.open(str(prepared.parent / ".espalier" / "store"))
        weights.append(load_file(store.open_artifact(ref).folder / "model.safetensors"))
        beside = store.beside(ref)
        assert beside is not None
        history = json.loads((beside / "history.json").read_text())
        losses.append([entry["loss"] for entry in history if "loss" in entry])
        assert store.manifest(ref).what["world"]["workers"] == workers
    one, two = weights
    assert len(losses[0]) == 4
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert one.keys() == two.keys()
    # AdamW's first steps are signs: where a gradient is all but zero (a key's bias), rounding decides a weight's.
    whole = [np.concatenate([one_of[name].ravel() for name in sorted(one)]) for one_of in weights]
    assert np.linalg.norm(whole[0] - whole[1]) < 5e-3 * np.linalg.norm(whole[0])


def test_more_workers_than_the_cluster_has_are_refused_at_once(prepared: Path, capsys) -> None:
    from espalier_pipeline.command import run as command

    options = ["--only", "train", "--candidate", "tiny", "--set", "candidates.tiny.where.workers=8"]
    more = ["--set", "candidates.tiny.where.cpus_per_worker=1"]
    assert command(["run", str(prepared), *options, *more]) == 5
    assert "the cluster has 2 CPUs" in capsys.readouterr().err
