"""Encoders pre-trained on plain texts, and what is then trained from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from espalier_runtime.opening import open_model
from espalier_training.train import train
from safetensors.torch import load_file

from .made import TASK, TINY, Made, content, rows, train_alone
from .test_training_resume import broken

FILL = {"name": "fill-mask", "config": {"text": "message"}}
SHORT = {"epochs": 3, "batch_size": 8, "max_tokens": 16, "learning_rate": 0.01}
SPLITS = {"train": rows(48), "validation": rows(12, start=90), "test": rows(6, start=96)}


def candidate(strategy: Any, **more: Any) -> dict[str, Any]:
    return {"strategy": strategy, "training": SHORT, "where": {"cpus_per_worker": 1}} | more


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    torch.set_num_threads(1)
    from_pre = {"base": {"from": "pre"}}
    candidates = {
        "pre": candidate({"name": "from-scratch", "config": TINY}, learner="masked", task=FILL, competes=False),
        "tuned": candidate(
            "full-finetune", task=TASK, training={**SHORT, "epochs": 40, "learning_rate": 0.002}, **from_pre
        ),
        "adapted": candidate(
            "peft", task=FILL, learner="masked", peft={"name": "lora", "config": {"rank": 2}}, **from_pre
        ),
    }
    return train_alone(tmp_path_factory.mktemp("masked"), FILL, SPLITS, candidates)


def test_pre_training_guesses_words_better_than_chance(chain: dict[str, Made]) -> None:
    found = chain["pre"].metrics
    assert found["train_loss"] < found["history"][0]["loss"] - 1
    opened = open_model(chain["pre"].place.store, chain["pre"].model, chain["pre"].place.plugins)
    scored = opened.predict(SPLITS["validation"]).to_pylist()
    assert all(row["scored_tokens"] >= 1 for row in scored)
    assert sum(row["nll"] for row in scored) / sum(row["scored_tokens"] for row in scored) < 4  # of 5.3 = log 200


def test_gaps_of_a_question_are_filled(chain: dict[str, Made]) -> None:
    opened = open_model(chain["pre"].place.store, chain["pre"].model, chain["pre"].place.plugins)
    [row] = opened.predict(pa.table({"masked": ["invoice charge [MASK] refund [MASK] 7 please"]})).to_pylist()
    assert [len(gap) for gap in row["fills"]] == [5, 5]
    assert row["prediction"] == "invoice charge {} refund {} 7 please".format(*(gap[0]["text"] for gap in row["fills"]))
    assert all(0 < fill["score"] < 1 for gap in row["fills"] for fill in gap)


def test_a_pre_trained_encoder_is_the_start_of_a_classifier(chain: dict[str, Made]) -> None:
    store = chain["pre"].place.store
    before, after = (
        load_file(store.open_artifact(chain[name].model).folder / "model.safetensors") for name in ("pre", "tuned")
    )
    shared = {name for name in before if name.startswith("bert.")}
    assert shared <= set(after)
    name = "bert.embeddings.word_embeddings.weight"
    moved = (after[name] - before[name]).norm() / before[name].norm()
    assert 0 < float(moved) < 0.5  # another start would be about 1.4 away
    opened = open_model(store, chain["tuned"].model, chain["pre"].place.plugins)
    answers = opened.predict(SPLITS["validation"]).column("prediction").to_pylist()
    wanted = SPLITS["validation"].column("queue").to_pylist()
    assert sum(one == other for one, other in zip(answers, wanted, strict=True)) >= 10


@pytest.mark.parametrize("name", ["pre", "adapted"])
def test_broken_off_it_goes_on_to_the_same_bytes(
    chain: dict[str, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    job = replace(chain[name].job, checkpoints=None, checkpoint_steps=4)  # 18 steps, 6 in an epoch
    train(job, out=tmp_path / "unbroken")
    resumable = replace(job, checkpoints=str(tmp_path / "checkpoints"))
    broken(resumable, 10, monkeypatch, out=tmp_path / "nothing")
    metrics = train(resumable, out=tmp_path / "resumed")
    assert (metrics["resumed_at"], metrics["steps"]) == (8, 18)
    assert content(tmp_path / "resumed") == content(tmp_path / "unbroken")
