"""Masked language modelling: its kit, and what is asked of which text in which epoch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from espalier_learners import Masked
from espalier_learners.masking import MaskTokens
from espalier_sdk import Budget, Columns, DataError, Head, HeadKind, Parts, PluginConfig, State
from espalier_sdk.testing import check_learner
from espalier_sdk.testing.tiny import VOCABULARY, WORDS, write_tokenizer
from pydantic import ValidationError

ROWS = [{"text": " ".join(WORDS[start : start + 6])} for start in range(0, 12)]
MASK = 4  # of the kit's tokenizer


class Nothing(State):
    """Nothing is learned."""


class Texts:
    """Texts of whose tokens the second is masked, in words of two tokens."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[PluginConfig]] = PluginConfig
    State: ClassVar[type[Nothing]] = Nothing
    head_kind: ClassVar[HeadKind] = "masked-lm"

    def columns(self) -> Columns:
        return Columns(required={"text": "text"})

    def observe(self, rows: pa.Table) -> Nothing:
        return Nothing()

    def finish(self, seen: Nothing) -> Nothing:
        return seen

    def head(self, state: Nothing) -> Head:
        return Head("masked-lm")

    def encode(self, rows: pa.Table, *, state: Any, tokenizer: Any, budget: Budget) -> pa.Table:
        ids = tokenizer(rows.column("text").to_pylist(), truncation=True, max_length=budget.max_tokens)["input_ids"]
        shown = [[*one[:1], MASK, *one[2:]] if len(one) > 2 else one for one in ids]
        labels = [[-100, one[1], *[-100] * (len(one) - 2)] if len(one) > 2 else [-100] * len(one) for one in ids]
        words = [[-1, *(place // 2 for place in range(len(one) - 2)), -1] for one in ids]
        return pa.table(
            {
                "row": pa.array(range(len(ids)), pa.int64()),
                "input_ids": pa.array(shown, pa.list_(pa.int32())),
                "attention_mask": pa.array([[1] * len(one) for one in ids], pa.list_(pa.int8())),
                "labels": pa.array(labels, pa.list_(pa.int64())),
                "espalier_words": pa.array(words, pa.list_(pa.int32())),
                "target": ["x"] * len(ids),
            }
        )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def encode(tokenizer: Any, rows: list[dict[str, str]], **config: Any) -> list[dict[str, Any]]:
    learner = Masked(Masked.Config(**config))
    options = {"state": Nothing(), "tokenizer": tokenizer, "budget": Budget(16)}
    table = learner.encode(pa.Table.from_pylist(rows), task=Texts(), **options)  # type: ignore[arg-type]
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def collator(tokenizer: Any, **config: Any) -> Any:
    return Masked(Masked.Config(**config)).inputs(Parts(model=None, tokenizer=tokenizer))["data_collator"]  # type: ignore[arg-type]


def long(length: int = 400, seed: int = 0) -> dict[str, Any]:
    ids = np.random.default_rng(seed).integers(5, VOCABULARY, length - 2)
    return {"input_ids": [2, *ids.tolist(), 3], "attention_mask": [1] * length}


@pytest.mark.parametrize("config", [{}, {"whole_words": True, "share": 0.4}])
def test_masked_passes_its_kit(config: dict[str, Any]) -> None:
    check_learner("masked", config=config, rows=pa.Table.from_pylist(ROWS * 2), task=Texts())


def test_the_task_s_own_masks_and_labels_are_gone(tokenizer: Any) -> None:
    rows = encode(tokenizer, [{"text": "word1 word2 word3"}, {"text": ""}, {"text": "nobody knows"}])
    assert [set(row) for row in rows] == [{"row", "input_ids", "attention_mask"}]  # [UNK] alone teaches nothing
    assert rows[0]["input_ids"] == tokenizer("word1 word2 word3")["input_ids"]


def test_eight_in_ten_are_masked_one_is_another_token_and_one_stays(tokenizer: Any) -> None:
    collate, fates = collator(tokenizer, share=0.5), Counter[str]()
    for seed in range(20):
        example = long(seed=seed)
        batch = collate([example])
        ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        asked = [place for place, label in enumerate(labels) if label != -100]
        assert len(asked) == 199  # half of 398
        for place, (before, after) in enumerate(zip(example["input_ids"], ids, strict=True)):
            if place not in asked:
                assert before == after
                continue
            assert labels[place] == before
            assert before >= 5  # no special token
            assert after == MASK or after >= 5
            fates["masked" if after == MASK else "same" if after == before else "other"] += 1
    total = fates.total()
    assert fates["masked"] / total == pytest.approx(0.8, abs=0.02)  # 3980 draws: a standard error of 0.006
    assert fates["other"] / total == pytest.approx(0.1, abs=0.02)


def test_what_is_drawn_depends_on_text_seed_and_epoch_and_on_nothing_else(tokenizer: Any) -> None:
    def drawn(examples: list[dict[str, Any]], *, seed: int = 0, epoch: int | None = 0) -> Any:
        collate = collator(tokenizer)
        collate.seed, collate.epoch = seed, epoch
        return collate(examples)["labels"]

    one, other = long(40), long(60, seed=1)
    alone = drawn([one])
    assert drawn([other, one])[1, :40].equal(alone[0])
    assert not drawn([one], epoch=1).equal(alone)
    assert not drawn([one], seed=1).equal(alone)
    assert not drawn([one], epoch=None).equal(alone)
    assert drawn([one], epoch=1).equal(drawn([one], epoch=1))


def test_a_text_of_one_token_is_asked_for_it(tokenizer: Any) -> None:
    batch = collator(tokenizer, share=0.01)([{"input_ids": [2, 9, 3], "attention_mask": [1, 1, 1]}])
    assert batch["labels"].tolist() == [[-100, 9, -100]]


def test_whole_words_are_asked_for_or_left(tokenizer: Any) -> None:
    rows = encode(tokenizer, ROWS, whole_words=True, share=0.4)
    collate = collator(tokenizer)
    for epoch in range(8):
        collate.epoch = epoch
        batch = collate(rows)
        assert set(batch) == {"input_ids", "attention_mask", "labels"}
        for labels in batch["labels"][:, 1:-1].tolist():
            asked = [label != -100 for label in labels]
            assert any(asked)
            assert asked[0::2] == asked[1::2]


def test_held_out_text_is_asked_the_same_whenever_it_is_measured(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from espalier_sdk.testing.tiny import tiny

    learner, seen = Masked(Masked.Config()), []
    model = tiny("bert", Head("masked-lm")).model
    rows = [{name: row[name] for name in ("input_ids", "attention_mask")} for row in encode(tokenizer, ROWS)]
    told = {"output_dir": str(tmp_path), "num_train_epochs": 3, "report_to": [], "disable_tqdm": True, "use_cpu": True}
    told |= {"eval_strategy": "epoch", "save_strategy": "no", "logging_steps": 1, "learning_rate": 0.0, "seed": 5}
    inputs = learner.inputs(Parts(model=model, tokenizer=tokenizer))
    trainer: Any = learner.trainer()(  # type: ignore[call-arg]
        model=model, args=learner.arguments(told), train_dataset=rows, eval_dataset=rows, **inputs
    )
    original = MaskTokens._masked

    def watched(masks: MaskTokens, example: dict[str, Any]) -> dict[str, Any]:
        seen.append((masks.seed, masks.epoch))
        return original(masks, example)

    monkeypatch.setattr(MaskTokens, "_masked", watched)
    trainer.train()
    assert Counter(seen) == {(5, 0): 12, (5, 1): 12, (5, 2): 12, (5, None): 36}
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert losses == [losses[0]] * 3  # nothing is learned at a rate of 0


def test_rows_without_text_and_tasks_without_words_are_refused(tokenizer: Any) -> None:
    class Bare(Texts):
        gone: ClassVar[list[str]] = ["espalier_words"]

        def encode(self, rows: pa.Table, **options: Any) -> pa.Table:
            return super().encode(rows, **options).drop_columns(self.gone)

    class Asking(Bare):
        gone: ClassVar[list[str]] = ["labels"]

    options = {"state": Nothing(), "tokenizer": tokenizer, "budget": Budget(16)}
    table = pa.Table.from_pylist(ROWS)
    with pytest.raises(DataError, match="pieces of one word"):
        Masked(Masked.Config(whole_words=True)).encode(table, task=Bare(), **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no text"):
        Masked(Masked.Config()).encode(table, task=Asking(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0, 1, -0.1, 15])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValidationError):
        Masked.Config(share=share)
