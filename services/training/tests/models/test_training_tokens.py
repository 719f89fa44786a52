"""Heads that answer per token: trained in this one process, opened again, and measured on rows that were not seen."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from espalier_runtime.opening import open_model
from espalier_runtime.tables import read_parts
from espalier_sdk import Choice

from .made import TINY, Made, train_alone

SCRATCH: dict[str, Any] = {
    "strategy": {"name": "from-scratch", "config": {**TINY, "dropout": 0.0, "max_positions": 64}},
    "training": {"epochs": 6, "batch_size": 8, "max_tokens": 32, "learning_rate": 0.01},
    "where": {"cpus_per_worker": 1},
}


def measured(made: Made, metric: str, rows: pa.Table) -> dict[str, float]:
    opened = open_model(made.place.store, made.model, made.place.plugins)
    predictions = opened.predict(rows, transformed=True)
    return dict(made.place.plugins.load("espalier.metrics", Choice(name=metric)).values(predictions))


def tagged(count: int, *, seed: int) -> pa.Table:
    """Returns sentences in which a title comes before a name of two words: the name is tagged."""
    draw, rows = random.Random(seed), []
    names = ["ada", "bob", "eve", "kim", "lee", "max"]
    for _ in range(count):
        before = [draw.choice(["yesterday", "today", "then"]) for _ in range(draw.randrange(3))]
        words = [*before, draw.choice(["mister", "doctor"]), draw.choice(names), draw.choice(names), "met", "ada"]
        tags = ["O"] * (len(before) + 1) + ["B-PER", "I-PER", "O", "O"]
        rows.append({"words": words, "tags": tags})
    return pa.Table.from_pylist(rows)


TAGS = {"name": "token-classification", "config": {"tokens": "words", "tags": "tags"}}


def with_training(**changes: Any) -> dict[str, Any]:
    return {**SCRATCH, "training": {**SCRATCH["training"], **changes}}


def test_tags_that_words_before_tell_are_learned(tmp_path: Path) -> None:
    splits = {"train": tagged(120, seed=0), "validation": tagged(8, seed=1)}
    made = train_alone(tmp_path, TAGS, splits, {"scratch": SCRATCH})["scratch"]
    # `ada` at the end is no name here: the word alone does not tell.
    assert measured(made, "entity-f1", tagged(30, seed=2))["micro_entity_f1"] > 0.95


def test_several_passes_per_step_train_at_the_rate_of_one(tmp_path: Path) -> None:
    """Encoder heads ignore the count of items that the trainer hands them: the loss would be that of two passes."""
    splits = {"train": tagged(32, seed=0), "validation": tagged(8, seed=1)}
    losses = []
    for size in (8, 4):
        candidate = {**with_training(epochs=1), "where": {"cpus_per_worker": 1, "micro_batch_size": size}}
        made = train_alone(tmp_path / str(size), TAGS, splits, {"scratch": candidate})["scratch"]
        losses.append(made.metrics["train_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_the_loss_on_validation_is_a_mean_over_labels_whatever_fits_a_pass(tmp_path: Path) -> None:
    """Long rows and short ones: the mean of two passes' means would be another one."""
    long = [{"words": ["ada"] * 20, "tags": ["O"] * 20}] * 3
    splits = {
        "train": tagged(16, seed=0),
        "validation": pa.concat_tables([tagged(9, seed=1), pa.Table.from_pylist(long)]),
    }
    losses = []
    for size in (8, 2, 1):
        candidate = {
            **with_training(max_steps=1, dtype="float32", learning_rate=1e-9),
            "where": {"micro_batch_size": size},
        }
        made = train_alone(tmp_path / str(size), TAGS, splits, {"scratch": candidate})["scratch"]
        losses.append(made.metrics["validation_loss"])
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-5)


def test_several_labels_per_text_are_learned(tmp_path: Path) -> None:
    words = {"money": "invoice charge refund", "parcel": "courier road late", "urgent": "now soon today"}

    def told(count: int, start: int) -> pa.Table:
        held = [[name for bit, name in enumerate(words) if place >> bit & 1] for place in range(start, start + count)]
        return pa.table(
            {
                "message": [" ".join(["hello", *(words[name] for name in names), "please"]) for names in held],
                "queues": pa.array(held, pa.list_(pa.string())),
            }
        )

    task = {"name": "classification", "config": {"text": "message", "target": "queues", "multi_label": True}}
    splits = {"train": told(96, 0), "validation": told(8, 0)}
    wider = {"name": "from-scratch", "config": {**TINY, "hidden_size": 64, "dropout": 0.0}}
    candidate = {**with_training(epochs=12, learning_rate=3e-3), "strategy": wider}
    made = train_alone(tmp_path, task, splits, {"scratch": candidate})["scratch"]
    found = measured(made, "accuracy", told(16, 3))
    assert found["accuracy"] == 1.0
    assert {"accuracy/money", "accuracy/parcel", "accuracy/urgent"} < set(found)


def test_a_label_that_train_has_not_is_no_error_of_training(tmp_path: Path) -> None:
    """A rare label may be in validation alone: no answer is right there, and its row has no loss."""
    task = {"name": "classification", "config": {"text": "text", "target": "label"}}
    known = pa.table({"text": ["late parcel", "wrong invoice"] * 8, "label": ["parcel", "money"] * 8})
    rare = pa.table({"text": ["lost key"] * 9 + ["late parcel"], "label": ["access"] * 9 + ["parcel"]})
    losses = [
        train_alone(tmp_path / name, task, {"train": known, "validation": rows}, {"scratch": SCRATCH})["scratch"]
        for name, rows in (("rare", rare), ("without", rare.slice(9)))
    ]
    with_rare, without = (one.metrics["validation_loss"] for one in losses)
    assert with_rare == pytest.approx(without, rel=1e-5)


def asked(count: int, *, seed: int) -> pa.Table:
    """Returns questions whose answer is what stands after `is`, in a context longer than a window."""
    draw, rows = random.Random(seed), []
    names = ["ada", "bob", "eve", "kim", "lee", "max"]
    for _ in range(count):
        before = " ".join(draw.choice(["yesterday", "today", "then"]) for _ in range(draw.randrange(20, 40)))
        answer = f"{draw.choice(names)} {draw.choice(names)}"
        context = f"{before} the winner is {answer} they said"
        answers = [{"text": answer, "start": context.index(answer)}]
        rows.append({"question": "who wins?", "context": context, "answers": answers})
    return pa.Table.from_pylist(rows)


QUESTIONS = {"name": "question-answering", "config": {"stride": 8}}
LORA = {"name": "lora", "config": {"rank": 4}}
PROMPT = {"name": "prompt-tuning", "config": {"tokens": 4}}


def loss_of_answers(made: Made) -> float:
    """Returns the loss on validation, computed from what the opened model answers."""
    import torch

    opened = open_model(made.place.store, made.model, made.place.plugins)
    encoded = read_parts(made.place.store.open_artifact(made.prepared).folder / "validation")
    outputs = asyncio.run(opened.engine.forward(encoded, adapter=opened.adapter))
    losses = []
    for logits, start, end in zip(
        outputs.column("logits").to_pylist(),
        *(encoded.column(name).to_pylist() for name in ("start_positions", "end_positions")),
        strict=True,
    ):
        both = torch.nn.functional.cross_entropy(torch.tensor(logits).T, torch.tensor([start, end]))
        losses.append(float(both))
    return sum(losses) / len(losses)


def test_answers_are_found_beyond_the_first_window_and_adapted_models_align(tmp_path: Path) -> None:
    """A prompt lengthens what the model reads: training and answers must count in the same tokens of the window."""
    splits = {"train": asked(60, seed=0), "validation": asked(8, seed=1)}
    short = with_training(epochs=1, dtype="float32")
    adapted = {
        name: {**short, "strategy": "peft", "base": {"from": "scratch"}, "peft": peft}
        for name, peft in (("lora", LORA), ("prompt", PROMPT))
    }
    made = train_alone(tmp_path, QUESTIONS, splits, {"scratch": with_training(epochs=10, dtype="float32"), **adapted})
    for name, one in made.items():
        found = measured(one, "squad", asked(20, seed=2))
        assert found["squad_f1"] > 0.75, f"{name}: {found}"
        assert loss_of_answers(one) == pytest.approx(one.metrics["validation_loss"], rel=1e-5), name
