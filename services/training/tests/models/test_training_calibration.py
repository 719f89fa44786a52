"""What a PEFT method reads before it is put in: the same batches again, and updates that are placed by them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from espalier_runtime.merging import merged_model
from espalier_sdk import Parts, SpecError
from espalier_training.calibration import calibration_batches
from espalier_training.examples import Examples
from espalier_training.train import train
from espalier_training.work import Work
from safetensors.torch import load_file

from .made import SPEC, TASK, TINY, Made, content, rows, train_alone
from .test_training_resume import broken

PLACED = {"name": "lora", "config": {"rank": 2, "placement": "relevance", "calibration_batches": 3}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch.set_num_threads(1)
    splits = {"train": rows(48), "validation": rows(6, start=90), "test": rows(6, start=96)}
    candidates = {**SPEC["candidates"], "adapted": {**SPEC["candidates"]["adapted"], "peft": PLACED}}
    return train_alone(tmp_path_factory.mktemp("calibration"), TASK, splits, candidates)["adapted"]


def read(made: Made, folder: Path, *, batches: int, seed: int) -> list[dict[str, torch.Tensor]]:
    work = Work(made.job, folder)
    work.peft.traits = lambda: replace(type(work.peft).traits(work.peft), calibration_batches=batches)
    job = replace(made.job, training={**made.job.training, "seed": seed})
    model = torch.nn.Linear(1, 1)
    return calibration_batches(
        job, work.peft, work.learner, Parts(model, work.tokenizer), Examples(work.prepared / "train")
    )


def test_batches_are_drawn_by_the_seed_alone_with_their_labels(made: Made, tmp_path: Path) -> None:
    one, again, other = (read(made, tmp_path, batches=3, seed=seed) for seed in (0, 0, 1))
    assert [len(batch["labels"]) for batch in one] == [8, 8, 8]
    assert all(torch.equal(left[name], right[name]) for left, right in zip(one, again, strict=True) for name in left)
    assert not torch.equal(one[0]["labels"], other[0]["labels"])
    # 48 rows are 6 batches: more are not there, and none is read twice.
    assert len(read(made, tmp_path, batches=9, seed=0)) == 6
    assert read(made, tmp_path, batches=0, seed=0) == []


def test_a_learner_without_labelled_batches_is_refused(made: Made, tmp_path: Path) -> None:
    work = Work(made.job, tmp_path)

    class Asks:
        def inputs(self, parts: Parts) -> dict[str, Any]:
            return {"reward_funcs": []}

    parts = Parts(torch.nn.Linear(1, 1), work.tokenizer)
    with pytest.raises(SpecError, match="lora calibrates on labels, and the learner supervised makes no") as refused:
        calibration_batches(made.job, work.peft, Asks(), parts, Examples(work.prepared / "train"))  # type: ignore[arg-type]
    assert refused.value.problems[0].field == "candidates.adapted.peft"


def test_the_model_has_the_ranks_that_were_placed_and_counts_them(made: Made, tmp_path: Path) -> None:
    store = made.place.store
    folder = store.open_artifact(made.model).folder
    ranks = json.loads((folder / "adapter_config.json").read_text())["rank_pattern"]
    assert len(set(ranks.values())) > 1
    weights = load_file(folder / "adapter_model.safetensors")
    assert made.metrics["trainable_parameters"] == sum(one.numel() for one in weights.values())
    merged = merged_model(store.open_artifact(made.model), store, made.place.plugins, scratch=tmp_path)
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]


def test_a_training_that_is_broken_off_ends_with_the_same_bytes(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(made.job, checkpoints=None, checkpoint_steps=3)  # 12 steps
    train(job, out=tmp_path / "whole")
    job = replace(job, checkpoints=str(tmp_path / "checkpoints"))
    broken(job, 7, monkeypatch, out=tmp_path / "broken")
    assert train(job, out=tmp_path / "resumed")["resumed_at"] == 6
    assert content(tmp_path / "resumed") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("task", "learner", "family"),
    [
        ({"name": "generation", "config": {"text": "message"}}, "causal", "llama"),
        ({"name": "generation", "config": {"text": "message"}}, "supervised", "llama"),
        ({"name": "fill-mask", "config": {"text": "message"}}, "masked", "bert"),
        ({"name": "regression", "config": {"text": "message", "target": "effort"}}, "supervised", "bert"),
    ],
)
def test_ranks_are_placed_for_other_heads_and_learners(
    tmp_path: Path, task: dict[str, Any], learner: str, family: str
) -> None:
    few = rows(16)
    few = few.append_column("effort", pa.array([float(place % 5) for place in range(16)]))
    common = {"learner": learner, "training": {"epochs": 1, "batch_size": 8, "max_tokens": 16}}
    config = {**TINY, "vocabulary_size": 300, "family": family}
    base = {"strategy": {"name": "from-scratch", "config": config}, **common}
    placed = {"strategy": "peft", "base": {"from": "base"}, "peft": PLACED, **common}
    made = train_alone(tmp_path, task, {"train": few, "validation": few}, {"base": base, "placed": placed})["placed"]
    folder = made.place.store.open_artifact(made.model).folder
    assert json.loads((folder / "adapter_config.json").read_text())["rank_pattern"]
