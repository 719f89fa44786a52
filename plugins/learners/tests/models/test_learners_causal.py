"""Next-token prediction: its kit, and packed rows in which no text sees another."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from espalier_learners import Causal
from espalier_learners.packing import PadPacks, best_fit, pack
from espalier_sdk import Budget, Columns, DataError, Head, HeadKind, Parts, PluginConfig, State
from espalier_sdk.testing import check_learner
from espalier_sdk.testing.tiny import VOCABULARY, WORDS, one_thread, write_tokenizer

ROWS = [{"text": " ".join(WORDS[start : start + 4 + start % 3])} for start in range(12)]


class Nothing(State):
    """Nothing is learned."""


class Texts:
    """Texts whose every token is a label."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[PluginConfig]] = PluginConfig
    State: ClassVar[type[Nothing]] = Nothing
    head_kind: ClassVar[HeadKind] = "causal-lm"

    def columns(self) -> Columns:
        return Columns(required={"text": "text"})

    def observe(self, rows: pa.Table) -> Nothing:
        return Nothing()

    def finish(self, seen: Nothing) -> Nothing:
        return seen

    def head(self, state: Nothing) -> Head:
        return Head("causal-lm")

    def encode(self, rows: pa.Table, *, state: Any, tokenizer: Any, budget: Budget) -> pa.Table:
        ids = tokenizer(rows.column("text").to_pylist(), truncation=True, max_length=budget.max_tokens)["input_ids"]
        return encoded(ids)


def encoded(ids: list[list[int]]) -> pa.Table:
    return pa.table(
        {
            "row": pa.array(range(len(ids)), pa.int64()),
            "input_ids": pa.array(ids, pa.list_(pa.int32())),
            "attention_mask": pa.array([[1] * len(one) for one in ids], pa.list_(pa.int8())),
            "labels": pa.array(ids, pa.list_(pa.int64())),
            "target": ["x"] * len(ids),
        }
    )


def texts(lengths: list[int], seed: int = 0) -> list[list[int]]:
    chance = random.Random(seed)
    return [[chance.randrange(5, VOCABULARY) for _ in range(length)] for length in lengths]


def decoder(family: str) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    if family == "gpt2":
        sizes = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    elif family in ("llama", "qwen3"):
        sizes |= {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}
    make: Any = transformers.AutoConfig.for_model
    return transformers.AutoModelForCausalLM.from_config(make(family, **sizes)).eval()


def losses(model: Any, batch: dict[str, Any]) -> Any:
    """Returns the loss of each token, (batch, tokens - 1)."""
    import torch

    with torch.no_grad():
        logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
    wanted = batch["labels"][:, 1:]
    return torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), wanted, reduction="none")


def packed(ids: list[list[int]], tmp_path: Path, max_tokens: int = 32) -> tuple[pa.Table, PadPacks]:
    from transformers import AutoTokenizer

    write_tokenizer(tmp_path)
    return pack(encoded(ids), max_tokens=max_tokens), PadPacks(AutoTokenizer.from_pretrained(tmp_path))


def test_causal_passes_its_kit() -> None:
    check_learner("causal", rows=pa.Table.from_pylist(ROWS), task=Texts())


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
@one_thread()
def test_the_loss_of_a_text_does_not_depend_on_its_neighbours_in_the_row(family: str, tmp_path: Path) -> None:
    import torch

    model, ids = decoder(family), texts([9, 7, 6, 5, 3, 11, 1])
    table, collate = packed(ids, tmp_path)
    assert table.num_rows == 2
    together = losses(model, collate(table.to_pylist()))
    batch = collate(table.to_pylist())
    found: dict[tuple[int, ...], list[float]] = {}
    for row, (tokens, places) in enumerate(zip(batch["input_ids"], batch["position_ids"], strict=True)):
        starts = [at for at, place in enumerate(places.tolist()) if place == 0] + [len(tokens)]
        for start, stop in pairwise(starts):
            key = tuple(tokens[start:stop].tolist())
            found[key] = together[row, start : stop - 1].tolist()
    for one in ids:
        with torch.no_grad():
            alone = losses(model, {"input_ids": torch.tensor([one]), "labels": torch.tensor([one])})[0].tolist()
        assert found[tuple(one)] == pytest.approx(alone, abs=1e-5)


@one_thread()
def test_without_positions_a_text_would_see_its_neighbours(tmp_path: Path) -> None:
    """The measure of the test above: it tells a row that leaks from one that does not."""
    model = decoder("llama")
    table, collate = packed(texts([9, 7, 6]), tmp_path)
    batch = collate(table.to_pylist())
    apart = losses(model, batch)
    leaking = losses(model, {name: value for name, value in batch.items() if name != "position_ids"})
    first = int((batch["position_ids"][0] == 0).nonzero()[1])
    assert leaking[0, : first - 1].tolist() == pytest.approx(apart[0, : first - 1].tolist(), abs=1e-5)
    assert (leaking[0, first:] - apart[0, first:]).abs().max() > 1e-3


@one_thread()
def test_the_loss_of_a_batch_is_the_mean_over_all_predicted_tokens(tmp_path: Path) -> None:
    import torch

    model, ids = decoder("llama"), texts([9, 7, 6, 5])
    table, collate = packed(ids, tmp_path, max_tokens=17)
    with torch.no_grad():
        loss = float(model(**collate(table.to_pylist())).loss)
    alone = [losses(model, {"input_ids": torch.tensor([one]), "labels": torch.tensor([one])})[0] for one in ids]
    assert loss == pytest.approx(float(torch.cat(alone).mean()), abs=1e-5)


def test_every_text_is_in_one_row_whole_and_its_first_token_is_no_label(tmp_path: Path) -> None:
    ids = texts([9, 7, 6, 5, 3, 11, 1])
    table, _ = packed(ids, tmp_path, max_tokens=16)
    back = []
    for row in table.to_pylist():
        assert len(row["input_ids"]) <= 16
        starts = [at for at, place in enumerate(row["position_ids"]) if place == 0] + [len(row["input_ids"])]
        for start, stop in pairwise(starts):
            assert row["position_ids"][start:stop] == list(range(stop - start))
            assert row["labels"][start] == -100
            assert row["labels"][start + 1 : stop] == row["input_ids"][start + 1 : stop]
            back.append(row["input_ids"][start:stop])
    assert sorted(back) == sorted(ids)


def test_rows_are_filled_as_full_as_they_can_be() -> None:
    assert best_fit([5, 4, 3, 3, 1], size=8) == [[0, 2], [1, 3, 4]]
    assert best_fit([], size=8) == []
    chance = random.Random(1)
    lengths = [chance.randint(1, 64) for _ in range(2000)]
    groups = best_fit(lengths, size=64)
    assert max(sum(lengths[place] for place in group) for group in groups) <= 64
    assert sorted(place for group in groups for place in group) == list(range(2000))
    assert len(groups) <= 1.02 * -(-sum(lengths) // 64)


def test_what_fills_a_row_up_is_no_part_of_the_last_text(tmp_path: Path) -> None:
    table, collate = packed(texts([9, 4]), tmp_path, max_tokens=10)
    batch = collate(table.to_pylist())
    # An attention mask, or a cache, would let texts see each other.
    assert set(batch) == {"input_ids", "position_ids", "labels", "use_cache"}
    assert batch["use_cache"] is False
    assert batch["position_ids"][1].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4]
    assert batch["labels"][1, 4:].tolist() == [-100] * 5


def test_rows_without_labels_are_refused(tmp_path: Path) -> None:
    class Asking(Texts):
        def encode(self, rows: pa.Table, **options: Any) -> pa.Table:
            return super().encode(rows, **options).drop_columns(["labels"])

    from transformers import AutoTokenizer

    write_tokenizer(tmp_path)
    options = {"state": Nothing(), "tokenizer": AutoTokenizer.from_pretrained(tmp_path), "budget": Budget(16)}
    with pytest.raises(DataError, match="no text or answer"):
        Causal(Causal.Config()).encode(pa.Table.from_pylist(ROWS), task=Asking(), **options)  # type: ignore[arg-type]


def test_the_collator_is_what_keeps_texts_apart(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    inputs = Causal(Causal.Config()).inputs(Parts(model=None, tokenizer=tokenizer))  # type: ignore[arg-type]
    assert isinstance(inputs["data_collator"], PadPacks)
