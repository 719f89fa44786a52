"""A frozen base in the bfloat16 that it is stored in, with every PEFT method; and blocks that are compiled."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import extract_model_from_parallel
from espalier_runtime.plugins import Plugins
from espalier_sdk import ArtifactRef, Choice, Head, Placement, SpecError
from espalier_sdk.testing.tiny import write_base
from espalier_training.anatomy import blocks_of
from espalier_training.device import compile_blocks, require_compiler
from espalier_training.footprint import Load, footprint
from espalier_training.train import train
from transformers import AutoModelForSequenceClassification

from .made import SPEC, TASK, Made, content, rows, train_alone

SPLITS = {"train": rows(48), "validation": rows(6, start=90), "test": rows(6, start=96)}
METHODS = (
    *("lora", "adalora", "loha", "lokr", "vera"),
    *("prompt-tuning", "prefix-tuning", "p-tuning"),
    *("bottleneck", "ia3", "bitfit", "ln-tuning"),
)
WITHOUT = {"llama": {"bitfit"}, "bert": set[str]()}  # llama has no biases
ENCODER = SPEC["candidates"]["scratch"]
DECODER = ENCODER | {
    "strategy": {
        "name": "from-scratch",
        "config": {**ENCODER["strategy"]["config"], "family": "llama", "vocabulary_size": 300},
    }
}


@pytest.fixture(scope="module", params=["bert", "llama"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """Returns a base, stored in bfloat16, and what every method makes of it in bfloat16."""
    torch.set_num_threads(1)
    scratch = DECODER if request.param == "llama" else ENCODER
    training = {**scratch["training"], "dtype": "bfloat16", "max_tokens": 30}  # of which prompts take 20
    adapted = {
        name: {**SPEC["candidates"]["adapted"], "peft": name, "training": training}
        for name in METHODS
        if name not in WITHOUT[request.param]
    }
    return train_alone(tmp_path_factory.mktemp(request.param), TASK, SPLITS, {"scratch": scratch} | adapted)


def in_bfloat16(made: Made, folder: Path) -> ArtifactRef:
    """Publishes a base like the one that was trained on, with its weights in bfloat16."""
    store = made.place.store
    source = store.open_artifact(ArtifactRef.parse(str(made.job.base))).folder
    attempt = store.begin("1" * 64)
    shutil.copytree(source, attempt.folder, dirs_exist_ok=True)
    AutoModelForSequenceClassification.from_pretrained(source).bfloat16().save_pretrained(attempt.folder)
    return attempt.publish(kind="model", name="stored", what={}).ref()


def watched(method: type[Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Returns the list that gets each model which the method saves."""
    seen: list[Any] = []
    save = method.save

    def saved(self: Any, model: Any, folder: Path) -> None:
        seen.append(model)
        save(self, model, folder)

    monkeypatch.setattr(method, "save", saved)
    return seen


def test_every_method_learns_beside_a_base_stored_in_bfloat16_as_beside_one_in_float32(
    made: dict[str, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = in_bfloat16(made["lora"], tmp_path)
    for name, one in made.items():
        if name == "scratch":
            continue
        method = type(one.place.plugins.load("espalier.peft_methods", Choice(name=name)))
        seen = watched(method, monkeypatch)
        out = tmp_path / name
        out.mkdir()
        told = train(replace(one.job, base=str(base)), out=out)
        assert told["train_loss"] == pytest.approx(one.metrics["train_loss"], abs=0.05), name
        assert all(math.isfinite(value) for value in told["forgetting"].values() if isinstance(value, float)), name
        trained = extract_model_from_parallel(seen[0], keep_fp32_wrapper=False)
        kinds = {(value.requires_grad, value.dtype) for value in trained.parameters()}
        assert (True, torch.float32) in kinds, name
        assert (True, torch.bfloat16) not in kinds, name
        assert (False, torch.bfloat16) in kinds, name


def test_what_is_foretold_counts_a_frozen_base_as_it_is_stored(tmp_path: Path) -> None:
    plugins, head = Plugins(), Head(kind="sequence-classification", outputs=3, problem="single-label")
    strategy = plugins.load("espalier.model_strategies", Choice(name="peft"))
    method = plugins.load("espalier.peft_methods", Choice(name="lora"))
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        folder = tmp_path / str(dtype)
        write_base(folder)
        AutoModelForSequenceClassification.from_pretrained(folder).to(dtype).save_pretrained(folder)
        blueprint = strategy.blueprint(head, tokenizer=folder, base=folder)
        load = Load(rows=1, tokens=2, dtype="bfloat16")
        model = strategy.build(blueprint, base=folder, placement=Placement(dtype="bfloat16"))
        assert {one.dtype for one in model.parameters()} == {torch.float32, dtype}  # the new head is trained
        found[dtype] = footprint(blueprint, strategy, method, load)
    frozen = sum(one.count for one in blueprint.parameters if one.role not in ("head", "side"))
    assert found[torch.float32] - found[torch.bfloat16] >= 2 * frozen


@pytest.mark.heavy
def test_compiled_blocks_learn_the_same(made: dict[str, Made], tmp_path: Path) -> None:
    one = made["lora"]
    told = train(replace(one.job, compile=True), out=tmp_path)
    assert told["train_loss"] == pytest.approx(one.metrics["train_loss"], abs=0.02)
    plain = content(one.place.store.open_artifact(one.model).folder)
    assert {name: len(data) for name, data in content(tmp_path).items()} == {
        name: len(data) for name, data in plain.items()
    }


def test_every_block_is_found_and_compiled_in_place(tmp_path: Path) -> None:
    write_base(tmp_path)
    plugins, head = Plugins(), Head(kind="sequence-classification", outputs=3, problem="single-label")
    strategy = plugins.load("espalier.model_strategies", Choice(name="peft"))
    blueprint = strategy.blueprint(head, tokenizer=tmp_path, base=tmp_path)
    model = strategy.build(blueprint, base=tmp_path, placement=Placement())
    layers = model.bert.encoder.layer
    assert blocks_of(model, blueprint) == list(layers)
    names = [name for name, _ in model.named_parameters()]
    compile_blocks(model, blueprint)
    assert all(layer._compiled_call_impl for layer in layers)
    assert [name for name, _ in model.named_parameters()] == names
    wrapped = plugins.load("espalier.peft_methods", Choice(name="lora")).inject(
        model, blueprint=blueprint, placement=Placement(), calibration=()
    )
    assert blocks_of(wrapped, blueprint) == list(layers)


def test_a_worker_without_a_compiler_says_so(made: dict[str, Made], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    require_compiler(made["lora"].job)
    with pytest.raises(SpecError, match=r"needs a C compiler") as caught:
        require_compiler(replace(made["lora"].job, compile=True))
    assert caught.value.problems[0].field == "candidates.lora.where.compile"
