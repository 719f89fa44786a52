"""Supervised learning against its kit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from espalier_learners import Supervised
from espalier_learners.weighting import balanced
from espalier_sdk import Columns, Parts, SpecError
from espalier_sdk.testing import check_learner
from espalier_sdk.testing.tiny import write_tokenizer


@pytest.mark.parametrize("config", [{}, {"class_weights": "balanced"}], ids=["plain", "balanced"])
def test_supervised_passes_its_kit(config: dict[str, Any]) -> None:
    check_learner("supervised", config=config)


class Asked:
    """What a trainer is as far as the weights go: it knows its model and its examples."""

    def __init__(self, labels: list[Any], problem: str, outputs: int) -> None:
        self.model = SimpleNamespace(config=SimpleNamespace(problem_type=problem, num_labels=outputs))
        self.train_dataset = [{"labels": label} for label in labels]


def loss(labels: list[Any], problem: str, *, logits: list[Any], asked: list[Any]) -> float:
    outputs = len(torch.tensor(logits)[0].flatten()) if problem != "tokens" else 2
    trainer = balanced(Asked)(labels, problem, outputs)  # type: ignore[arg-type]
    inputs = {"input_ids": torch.tensor(logits, dtype=torch.float32), "labels": torch.tensor(asked)}
    return float(trainer.compute_loss(lambda input_ids: SimpleNamespace(logits=input_ids), inputs))


def test_balanced_labels_count_the_same_in_all() -> None:
    three_and_one = [[0.0, 1.0]] * 3 + [[1.0, 0.0]]  # each answer is wrong by the same
    one = float(torch.nn.functional.cross_entropy(torch.tensor([[0.0, 1.0]]), torch.tensor([0])))
    found = loss([0, 0, 0, 1], "single_label_classification", logits=three_and_one, asked=[0, 0, 0, 1])
    assert found == pytest.approx(one)
    rare = loss([0, 0, 0, 1], "single_label_classification", logits=[[1.0, 0.0]], asked=[1])
    often = loss([0, 0, 0, 1], "single_label_classification", logits=[[0.0, 1.0]], asked=[0])
    assert rare == pytest.approx(3 * often)  # a batch of its own tells so too: it is not divided by its weights


def test_tokens_without_a_label_count_nothing() -> None:
    labels = [[-100, 0, 0, 0], [1]]
    logits = [[[9.0, 0.0], [0.0, 1.0], [0.0, 1.0]]]
    alone = loss(labels, "tokens", logits=[[[0.0, 1.0]]], asked=[[0]])
    assert loss(labels, "tokens", logits=logits, asked=[[-100, 0, 0]]) == pytest.approx(alone)


def test_each_of_several_labels_is_weighed_against_its_absence() -> None:
    labels = [[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    there = loss(labels, "multi_label_classification", logits=[[0.0, 0.0]], asked=[[1.0, 0.0]])
    absent = loss(labels, "multi_label_classification", logits=[[0.0, 0.0]], asked=[[0.0, 0.0]])
    assert there == pytest.approx(2 * absent)  # 3 to 1 are weighed up: (3 + 1) / 2 against (1 + 1) / 2


def test_numbers_are_not_weighed() -> None:
    with pytest.raises(SpecError, match="this task has numbers"):
        balanced(Asked)([0.5], "regression", 1)  # type: ignore[arg-type]
    spans = SimpleNamespace(head_kind="question-answering", columns=lambda: Columns(required={"text": "text"}))
    with pytest.raises(SpecError, match="this task has none"):
        Supervised(Supervised.Config(class_weights="balanced")).columns(spans)  # type: ignore[arg-type]
    columns = Columns(required={"text": "text", "effort": "value"})
    numbers = SimpleNamespace(head_kind="sequence-classification", columns=lambda: columns)
    with pytest.raises(SpecError, match="this task has numbers"):
        Supervised(Supervised.Config(class_weights="balanced")).columns(numbers)  # type: ignore[arg-type]
    assert Supervised(Supervised.Config()).columns(numbers) == columns  # type: ignore[arg-type]


def test_a_batch_is_padded_to_its_longest_example(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    collate = Supervised(Supervised.Config()).inputs(Parts(model=None, tokenizer=tokenizer))["data_collator"]  # type: ignore[arg-type]
    rows = [
        {"input_ids": [2, 9, 3], "attention_mask": [1, 1, 1], "labels": 1},
        {"input_ids": [2], "attention_mask": [1], "labels": 0},
    ]
    batch = collate(rows)
    assert batch["input_ids"].tolist() == [[2, 9, 3], [2, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]


@pytest.mark.parametrize(("most", "width"), [(None, 3), (2, 3), (6, 6), (32, 8)])
def test_a_batch_is_as_wide_as_a_multiple_of_eight_where_that_is_allowed(
    tmp_path: Path, most: int | None, width: int
) -> None:
    from transformers import AutoTokenizer

    write_tokenizer(tmp_path)
    parts = Parts(model=None, tokenizer=AutoTokenizer.from_pretrained(tmp_path), max_tokens=most)  # type: ignore[arg-type]
    rows = [{"input_ids": [2, 9, 3], "attention_mask": [1, 1, 1], "labels": [-100, 4, -100]}]
    batch = Supervised(Supervised.Config()).inputs(parts)["data_collator"](rows)
    assert [batch[name].shape[1] for name in ("input_ids", "attention_mask", "labels")] == [width] * 3
    assert int(batch["attention_mask"].sum()) == 3
    assert batch["labels"][0, 3:].tolist() == [-100] * (width - 3)


def test_labels_of_tokens_are_padded_with_what_the_loss_leaves_out(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    collate = Supervised(Supervised.Config()).inputs(Parts(model=None, tokenizer=tokenizer))["data_collator"]  # type: ignore[arg-type]
    rows = [
        {"input_ids": [2, 9, 3], "attention_mask": [1, 1, 1], "labels": [-100, 4, -100], "side": [0.5, 1.0]},
        {"input_ids": [2], "attention_mask": [1], "labels": [5], "side": [0.0, 2.0]},
    ]
    batch = collate(rows)
    assert batch["labels"].tolist() == [[-100, 4, -100], [5, -100, -100]]
    assert batch["side"].tolist() == [[0.5, 1.0], [0.0, 2.0]]
    tokenizer.padding_side = "left"
    assert collate(rows)["labels"].tolist() == [[-100, 4, -100], [-100, -100, 5]]


def test_several_labels_per_text_are_stacked_and_not_padded(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    collate = Supervised(Supervised.Config()).inputs(Parts(model=None, tokenizer=tokenizer))["data_collator"]  # type: ignore[arg-type]
    rows = [
        {"input_ids": [2, 9, 8, 3], "attention_mask": [1, 1, 1, 1], "labels": [0.0, 1.0]},
        {"input_ids": [2, 3], "attention_mask": [1, 1], "labels": [1.0, 1.0]},
    ]
    assert collate(rows)["labels"].tolist() == [[0.0, 1.0], [1.0, 1.0]]
