"""An adapter trained beside a base in four bits (QLoRA), here on another candidate's model, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import extract_model_from_parallel
from espalier_runtime.opening import open_model, read_card
from espalier_runtime.plugins import Plugins
from espalier_runtime.request import train_request
from espalier_sdk import Adapter, ArtifactRef, Choice, Head, Placement, SpecError, fourbit
from espalier_sdk.testing.tiny import write_base
from espalier_training.export import export
from espalier_training.footprint import Load, footprint
from espalier_training.train import train
from transformers import AutoModelForSequenceClassification

from .made import SPEC, TASK, Made, content, rows, train_alone
from .test_training_export import scores as answers_of

QLORA = {
    **SPEC["candidates"]["adapted"],
    "strategy": {"name": "peft", "config": {"quantise": "nf4"}},
    "peft": {"name": "lora", "config": {"rank": 2, "dropout": 0, "targets": "all-linear"}},
}
SPLITS = {"train": rows(48), "validation": rows(6, start=90), "test": rows(6, start=96)}


def base_and_adapter(folder: Path) -> dict[str, Made]:
    candidates = {"scratch": SPEC["candidates"]["scratch"], "adapted": QLORA}
    return train_alone(folder, TASK, SPLITS, candidates)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: make setup-four-bits")
    torch.set_num_threads(1)
    return base_and_adapter(tmp_path_factory.mktemp("four-bits"))["adapted"]


def scores(made: Made) -> torch.Tensor:
    opened = open_model(made.place.store, made.model, made.place.plugins)
    return torch.tensor(opened.predict(rows(12, start=90).select(["message"])).column("scores").to_pylist())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_learns_beside_four_bits_and_answers_the_same_when_it_is_opened_again(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """Opened again the base is in four bits too: not one bit of an answer in float32 is another."""
    seen: list[Any] = []
    method = type(made.place.plugins.load("espalier.peft_methods", Choice(name="lora")))
    save = method.save
    monkeypatch.setattr(method, "save", lambda self, model, folder: (seen.append(model), save(self, model, folder))[1])
    told = train(replace(made.job, training=made.job.training | {"dtype": dtype}), out=tmp_path)
    losses = [entry["loss"] for entry in told["history"] if "loss" in entry]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert told["trainable_parameters"] < told["parameters"] / 5

    card = read_card(tmp_path)
    ids = torch.tensor([[2, 9, 11, 3], [2, 7, 8, 3]])
    trained = extract_model_from_parallel(seen[0], keep_fp32_wrapper=False).eval()
    kinds = {name: value.dtype for name, value in trained.named_parameters()}
    codes = [name for name, kind in kinds.items() if kind == torch.uint8]
    assert len(codes) == 6  # queries, keys, values, attention's output, two of the feed-forward
    assert all(kind == torch.float32 for name, kind in kinds.items() if "lora_" in name or "classifier" in name)
    engine = made.place.plugins.load("espalier.engines", Choice(name="transformers"))
    base = made.place.store.open_artifact(ArtifactRef.parse(card["base"])).folder
    placement: Any = Placement(dtype=dtype, quantise=card["quantise"])
    adapters = {"own": Adapter(tmp_path, method(method.Config(**QLORA["peft"]["config"])))}
    engine.open(base, head=Head(**card["head"]), adapters=adapters, placement=placement)
    opened = engine._model("own")
    with torch.no_grad():
        wanted, found = (one(input_ids=ids, attention_mask=torch.ones_like(ids)).logits for one in (trained, opened))
    assert torch.equal(found, wanted)
    assert [name for name, value in opened.named_parameters() if value.dtype == torch.uint8] == codes


def test_the_model_is_an_adapter_that_names_its_base_and_how_it_was_kept(made: Made) -> None:
    folder = made.place.store.open_artifact(made.model).folder
    files = content(folder)
    assert "adapter_model.safetensors" in files
    assert "model.safetensors" not in files
    card = read_card(folder)
    assert (card["quantise"], card["base"]) == ("nf4", str(made.place.store.manifest(made.model).inputs[1]))


def test_the_same_job_gives_equal_bytes(made: Made, tmp_path: Path) -> None:
    train(made.job, out=tmp_path)
    assert content(tmp_path) == content(made.place.store.open_artifact(made.model).folder)


def test_merged_it_is_a_plain_float_model_that_answers_as_in_four_bits(made: Made, tmp_path: Path) -> None:
    store = made.place.store
    files = export(store.open_artifact(made.model), store, tmp_path / "plain", merged=True)
    assert "model.safetensors" in files
    plain: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain")
    assert {value.dtype for value in plain.parameters()} == {torch.float32}
    assert not getattr(plain.config, "quantization_config", None)
    asked = rows(12, start=90).column("message").to_pylist()
    torch.testing.assert_close(answers_of(tmp_path / "plain", asked), scores(made), atol=1e-5, rtol=0)


def test_bitsandbytes_is_a_part_of_the_request(made: Made) -> None:
    inputs = {"dataset": made.dataset, "base": made.model}
    spec = made.place.spec
    assert "bitsandbytes" in train_request(spec, "adapted", inputs, made.place.plugins).libraries
    assert "bitsandbytes" not in train_request(spec, "scratch", inputs, made.place.plugins).libraries


def test_without_bitsandbytes_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fourbit, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match="needs bitsandbytes, which is not installed") as refused:
        base_and_adapter(tmp_path)
    (problem,) = refused.value.problems
    assert problem.field == "candidates.adapted.strategy.config.quantise"
    assert "make setup-four-bits" in str(problem.remedy)


def test_the_memory_that_is_foretold_counts_codes_and_one_whole_layer(tmp_path: Path) -> None:
    """Two blocks of 4 x (32 x 32) and 2 x (32 x 48) weights each; the embeddings, pooler and head stay whole."""
    write_base(tmp_path)
    plugins, head = Plugins(), Head("sequence-classification", outputs=3, problem="single-label")
    method, found = plugins.load("espalier.peft_methods", Choice(name="lora")), {}
    for quantise in ("none", "nf4"):
        strategy = plugins.load("espalier.model_strategies", Choice(name="peft", config={"quantise": quantise}))
        blueprint = strategy.blueprint(head, tokenizer=tmp_path, base=tmp_path)
        found[quantise] = footprint(blueprint, strategy, method, Load(rows=2, tokens=8, dtype="float32"))
    quantised = 2 * (4 * 32 * 32 + 2 * 32 * 48)
    codes = quantised / 2 + quantised / 64 + 4 * quantised / 64 / 256
    assert found["none"] - found["nf4"] == 4 * quantised - round(codes) - 4 * 32 * 48
