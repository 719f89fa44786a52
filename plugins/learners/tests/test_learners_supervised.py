"""Supervised learning against its kit."""

from __future__ import annotations

from pathlib import Path

from espalier_learners import Supervised
from espalier_sdk import Parts
from espalier_sdk.testing import check_learner
from espalier_sdk.testing.tiny import write_tokenizer


def test_supervised_passes_its_kit() -> None:
    check_learner("supervised")


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
