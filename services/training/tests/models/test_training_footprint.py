"""The memory that is foretold: counted without computing; what a real pass keeps, with a share for a heap's gaps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from espalier_runtime.plugins import Plugins
from espalier_sdk import Blueprint, Choice, Head, Placement, clean_name
from espalier_sdk.heads import blank_batch
from espalier_sdk.testing.tiny import write_base
from espalier_training.footprint import Load, activations, footprint

LOAD = Load(rows=4, tokens=16, dtype="float32")
HEAD = Head(kind="sequence-classification", outputs=3, problem="single-label")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_base(folder)
    return folder


def opened(base: Path, head: Head, peft: str | None) -> tuple[Blueprint, Any, Any]:
    plugins = Plugins()
    strategy = plugins.load("espalier.model_strategies", Choice(name="peft" if peft else "full-finetune"))
    method = plugins.load("espalier.peft_methods", Choice(name=peft)) if peft else None
    return strategy.blueprint(head, tokenizer=base, base=base), strategy, method


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "head",
    [
        HEAD,
        replace(HEAD, problem="multi-label"),
        replace(HEAD, outputs=1, problem="regression", side_width=2),
        Head(kind="token-classification", outputs=5),
        Head(kind="question-answering", outputs=2),
    ],
    ids=["label", "labels", "number", "tokens", "answers"],
)
def test_activations_are_those_of_a_real_pass(base: Path, head: Head, dtype: str) -> None:
    load = replace(LOAD, dtype=dtype)
    blueprint, strategy, _ = opened(base, head, None)
    model = strategy.build(blueprint, base=base, placement=Placement())
    kept = activations(model, head, load)
    assert kept > 0
    weights = sum(4 * one.numel() for one in model.parameters())
    taken = max(round(1.7 * kept), weights)  # a heap has gaps
    assert footprint(blueprint, strategy, None, load) == 4 * weights + taken  # two moments, and the start
    beside = footprint(blueprint, strategy, None, replace(load, beside=weights))
    assert beside == footprint(blueprint, strategy, None, load) + weights


def test_a_method_of_few_weights_needs_no_moments_for_the_others(base: Path) -> None:
    blueprint, strategy, lora = opened(base, HEAD, "lora")
    found = footprint(blueprint, strategy, lora, LOAD)
    model = lora.inject(
        strategy.build(blueprint, base=base, placement=Placement()),
        blueprint=blueprint,
        placement=Placement(),
        calibration=(),
    )
    weights = 4 * sum(one.numel() for one in model.parameters())
    infos = (*blueprint.parameters, *lora.parameters(blueprint))
    trained = 4 * sum(one.count for one in infos if strategy.trainable(one))
    assert found == weights + 3 * trained + max(round(1.7 * activations(model, HEAD, LOAD)), trained)
    assert trained < weights / 5


def test_more_rows_need_more_and_what_saves_memory_needs_less(base: Path) -> None:
    blueprint, strategy, _ = opened(base, HEAD, None)
    wide = replace(LOAD, rows=64)
    usual = footprint(blueprint, strategy, None, wide)
    assert usual > footprint(blueprint, strategy, None, LOAD)
    assert footprint(blueprint, strategy, None, replace(wide, gradient_checkpointing=True)) < usual
    by_stage = [footprint(blueprint, strategy, None, replace(wide, zero_stage=stage, workers=2)) for stage in (1, 3)]
    assert by_stage[1] < by_stage[0] < usual


def test_a_blank_batch_is_one_that_a_model_takes(base: Path) -> None:
    batch = blank_batch(HEAD, rows=2, tokens=5)
    assert batch["input_ids"].shape == (2, 5)
    assert batch["labels"].dtype == torch.long


def test_a_gpu_keeps_less_of_a_dropout(base: Path) -> None:
    """A byte for each value that a dropout read, and on a CPU a float32: the tiny base drops twice in each block."""
    blueprint, strategy, _ = opened(base, HEAD, None)
    wide = replace(LOAD, rows=64)
    saved = footprint(blueprint, strategy, None, wide) - footprint(blueprint, strategy, None, replace(wide, gpu=True))
    values = 64 * 16 * 32  # rows, tokens, width
    assert saved >= 2 * blueprint.blocks * values * 3


def test_a_loss_without_all_logits_keeps_less_and_takes_what_it_says(tmp_path: Path) -> None:
    write_base(tmp_path, "llama")
    head = Head("causal-lm")
    blueprint, strategy, _ = opened(tmp_path, head, None)
    model = strategy.build(blueprint, base=tmp_path, placement=Placement())
    words, asked = model.config.vocab_size, []

    def pieces(*given: Any, **more: Any) -> int:
        asked.append((*given, more))
        return 10**9

    spared = replace(LOAD, loss_bytes=pieces)
    kept, without = (activations(model, head, load) for load in (LOAD, spared))
    assert kept - without >= 4 * LOAD.rows * LOAD.tokens * words
    more = footprint(blueprint, strategy, None, spared) - footprint(blueprint, strategy, None, LOAD)
    assert 10**9 > more > 10**9 - 2 * kept
    assert asked == [(LOAD.rows * LOAD.tokens, words, {"gpu": False})]


@pytest.mark.parametrize("method", ["loha", "lokr", "prompt-tuning", "p-tuning"])
def test_a_method_that_draws_or_looks_at_weights_is_followed_without_any(base: Path, method: str) -> None:
    blueprint, strategy, peft = opened(base, HEAD, method)
    built = strategy.build(blueprint, base=base, placement=Placement())
    model = peft.inject(built, blueprint=blueprint, placement=Placement(), calibration=())
    weights = sum(4 * one.numel() for one in model.parameters())
    names = {one.name for one in (*blueprint.parameters, *peft.parameters(blueprint)) if strategy.trainable(one)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(clean_name(name) in names)
    trained = sum(4 * one.numel() for one in model.parameters() if one.requires_grad)
    kept = activations(model, HEAD, LOAD)
    assert footprint(blueprint, strategy, peft, LOAD) == weights + 3 * trained + max(round(1.7 * kept), trained)
