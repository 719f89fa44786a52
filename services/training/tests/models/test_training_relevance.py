"""Relevance: what it measures on models whose parts are known, and what it tells of models that were trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from espalier_runtime.store import OpenArtifact
from espalier_runtime.tables import write_parts
from espalier_sdk import Blueprint, DataError, Head, ParameterInfo, SpecError
from espalier_sdk.heads import blank_batch, build_model, with_head
from espalier_sdk.testing.tiny import Family, Tiny, batch, tiny
from espalier_training.anatomy import Anatomy, dissect
from espalier_training.attribution import Effect, answers, attribute, remove, shuffle_weights
from espalier_training.relevance import own_dataset, rank_correlation, relevance

from .made import SPEC, TASK, TINY, Made, rows, train_alone

HEAD = Head("sequence-classification", outputs=3, problem="single-label")
HEADS = 4  # of the tiny models, in each of two blocks


def opened(family: Family, head: Head = HEAD) -> tuple[Anatomy, Tiny, list[dict[str, torch.Tensor]]]:
    made = tiny(family, head)
    batches = [batch((5, 7, 6), seed=1), batch((4, 4), seed=2)]
    made.model.eval()
    return dissect(made.model, made.blueprint, batches[0]), made, batches


def without(anatomy: Anatomy, kind: Any, chosen: np.ndarray, batches: list[dict[str, torch.Tensor]]) -> Effect:
    return remove(anatomy, kind, chosen, batches, before=answers(anatomy, batches))


@pytest.mark.parametrize(
    ("family", "heads", "units"),
    [
        ("bert", "bert.encoder.layer.1.attention.output.dense", "bert.encoder.layer.1.output.dense"),
        ("llama", "model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj"),
    ],
)
def test_heads_and_hidden_units_are_found_by_the_order_in_which_layers_run(
    family: Family, heads: str, units: str
) -> None:
    anatomy, made, _ = opened(family)
    assert anatomy.blocks[1].heads is made.model.get_submodule(heads)
    assert anatomy.blocks[1].units is made.model.get_submodule(units)
    assert anatomy.blocks[1].whole is made.model.get_submodule(units.partition("1.")[0] + "1")


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_head_that_writes_nothing_carries_nothing(family: Family) -> None:
    anatomy, _, batches = opened(family)
    weight: Any = anatomy.blocks[0].heads.weight
    with torch.no_grad():
        weight[:, 8:] = 0  # each head is 8 wide: only the first of the first block is read
    found = attribute(anatomy, batches)
    assert found.heads[0, 0] > 0
    assert found.heads[0, 1:].tolist() == [0, 0, 0]
    assert found.heads.shape == (2, HEADS)
    for shares in (found.layers, found.heads, found.units, np.array([one.relevance for one in found.modules])):
        assert abs(shares.sum() - 1) < 1e-12
    assert len(found.modules) == 2 * (6 if family == "bert" else 7)


@pytest.mark.parametrize("kind", ["heads", "units"])
def test_relevance_is_the_slope_of_the_score_as_a_part_is_turned_down(kind: Any) -> None:
    """The definition by differences, in float64: no gradient of torch's is used on this side."""
    anatomy, made, batches = opened("bert")
    made.model.double()
    found = attribute(anatomy, batches).of(kind)
    width = 8 if kind == "heads" else 1
    logits = [made.model(**one).logits.detach() for one in batches]
    best = [one.topk(2).indices for one in logits]
    slopes = np.zeros((2, 3))
    for block, part in np.ndindex(2, 3):
        total = 0.0
        for one, pair in zip(batches, best, strict=True):
            leads = []
            for gate in (1 + 1e-4, 1 - 1e-4):

                def turn(_module: Any, given: Any, gate: float = gate, part: int = part) -> Any:
                    scale = torch.ones(given[0].shape[-1], dtype=torch.float64)
                    scale[part * width : (part + 1) * width] = gate
                    return (given[0] * scale,)

                handle = anatomy.blocks[block].out(kind).register_forward_pre_hook(turn)
                answer = made.model(**one).logits.detach().gather(1, pair)
                handle.remove()
                leads.append(answer[:, 0] - answer[:, 1])
            total += float(((leads[0] - leads[1]) / 2e-4).abs().sum())
        slopes[block, part] = total
    np.testing.assert_allclose(found[:, :3] / found[0, 0], slopes / slopes[0, 0], rtol=1e-5)


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("seed", range(3))
def test_heads_that_write_most_are_found_and_missed_most(family: Family, seed: int) -> None:
    """Of each block a head writes thirty times what it wrote, and one nearly nothing, whichever they are."""
    anatomy, _, batches = opened(family)
    draw = np.random.default_rng(seed)
    drawn = np.stack([draw.permutation(HEADS), HEADS + draw.permutation(HEADS)])
    loud, quiet = drawn[:, 0], drawn[:, 1]
    with torch.no_grad():
        for places, factor in ((loud, 30), (quiet, 1e-6)):
            for block, head in zip(*np.unravel_index(places, (2, HEADS)), strict=True):
                weight: Any = anatomy.blocks[block].heads.weight
                weight[:, 8 * head : 8 * head + 8] *= factor
    order = attribute(anatomy, batches).heads.flatten().argsort()
    assert set(order[:2]) == set(quiet)
    assert set(order[-2:]) == set(loud)

    def moved(places: np.ndarray) -> float:
        chosen = np.zeros(2 * HEADS, dtype=bool)
        chosen[places] = True
        return without(anatomy, "heads", chosen.reshape(2, HEADS), batches).moved

    others = [moved(drawn[:, place]) for place in (2, 3)]
    assert moved(quiet) < min(others) < max(others) < moved(loud)


def test_removing_all_heads_moves_and_removing_none_does_not() -> None:
    anatomy, _, batches = opened("llama")
    nothing = without(anatomy, "heads", np.zeros((2, HEADS), dtype=bool), batches)
    assert (nothing.moved, nothing.kept) == (0, 1)
    assert without(anatomy, "heads", np.ones((2, HEADS), dtype=bool), batches).moved > 0.01


@pytest.mark.parametrize(
    ("head", "answers"),
    [
        (Head("sequence-classification", outputs=1, problem="regression"), None),
        (Head("sequence-classification", outputs=3, problem="multi-label"), 5),
        (Head("token-classification", outputs=3), 26),
        (Head("sequence-classification", outputs=3, side_width=2, problem="single-label"), 5),
    ],
)
def test_each_head_has_its_own_kind_of_decision(head: Head, answers: int | None) -> None:
    made = tiny("bert", head)
    made.model.eval()
    batches = [batch(lengths, seed=1, side_width=head.side_width) for lengths in ((5, 7, 6), (4, 4))]
    anatomy = dissect(made.model, made.blueprint, batches[0])
    assert attribute(anatomy, batches).layers.sum() == pytest.approx(1)
    kept = without(anatomy, "units", np.ones((2, 48), dtype=bool), batches).kept
    assert kept is None if answers is None else abs(kept * answers - round(kept * answers)) < 1e-9


def test_blocks_without_attention_are_refused_by_name() -> None:
    made = tiny("bert", HEAD)
    for block in made.model.bert.encoder.layer:
        block.attention = torch.nn.Identity()
        block.forward = lambda states, *_, block=block, **__: block.output(block.intermediate(states), states)
    with pytest.raises(DataError, match="blocks of bert cannot be read: block 1 has no attention"):
        dissect(made.model, made.blueprint, blank_batch(HEAD, rows=1, tokens=4))


def test_mixtures_of_experts_are_refused_and_not_read_by_their_router() -> None:
    from transformers import MixtralConfig

    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "vocab_size": 64}
    config = MixtralConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, num_local_experts=2, pad_token_id=0)
    model = build_model(with_head(config, HEAD), HEAD)
    infos = [
        ParameterInfo(name, tuple(value.shape), int(".layers." in name), "block" if ".layers." in name else "head")
        for name, value in model.named_parameters()
    ]
    blueprint = Blueprint(config.to_diff_dict(), HEAD, 1, tuple(infos), ())
    with pytest.raises(DataError, match="blocks of mixtral cannot be read"):
        dissect(model, blueprint, batch((4, 4)))


CANDIDATES = {
    "scratch": {
        **SPEC["candidates"]["scratch"],
        "strategy": {"name": "from-scratch", "config": {**TINY, "layers": 2, "heads": 4}},
        "training": {**SPEC["candidates"]["scratch"]["training"], "epochs": 12},
    },
    "adapted": SPEC["candidates"]["adapted"],
    "prefixed": {**SPEC["candidates"]["adapted"], "peft": {"name": "prefix-tuning", "config": {"tokens": 2}}},
    "bottled": {**SPEC["candidates"]["adapted"], "peft": "bottleneck"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    torch.set_num_threads(1)
    splits = {"train": rows(48), "validation": rows(30, start=90), "test": rows(6, start=150)}
    return train_alone(tmp_path_factory.mktemp("relevance"), TASK, splits, CANDIDATES)


def measure(made: Made, data: OpenArtifact | None = None, **options: Any) -> dict[str, Any]:
    store = made.place.store
    model = store.open_artifact(made.model)
    data = data or store.open_artifact(own_dataset(model))
    return relevance(model, data, store, made.place.plugins, **{"rows": 20, "seed": 0, **options})


def test_units_that_carry_most_are_missed_most(made: dict[str, Made]) -> None:
    found = measure(made["scratch"])
    removal = found["removal"]["units"]
    assert removal["most"]["moved"] > 2 * removal["least"]["moved"]
    assert removal["least"]["moved"] < min(one["moved"] for one in removal["drawn"])
    assert (found["removal"]["heads"]["removed"], found["removal"]["heads"]["of"]) == (2, 8)
    assert abs(found["shuffled"]["units"]) < 0.4


def test_the_same_rows_give_the_same_figures_and_another_seed_other_rows(made: dict[str, Made]) -> None:
    one = measure(made["scratch"])
    assert measure(made["scratch"]) == one
    assert measure(made["scratch"], seed=1)["layers"] != one["layers"]
    assert measure(made["scratch"], rows=1000)["rows"] == 30  # all of validation, and nothing of another split


@pytest.mark.parametrize("name", ["adapted", "prefixed", "bottled"])
def test_an_adapter_is_read_with_its_base(made: dict[str, Made], name: str) -> None:
    found = measure(made[name])
    assert [len(one["heads"]) for one in found["layers"]] == [4, 4]
    assert sum(one["relevance"] for one in found["modules"]) == pytest.approx(1)
    assert {one["name"] for one in found["modules"]} == {one["name"] for one in measure(made["scratch"])["modules"]}
    assert found["layers"] != measure(made["scratch"])["layers"]


@pytest.mark.parametrize("family", ["llama", "gpt2", "modernbert", "qwen3", "roberta"])
def test_other_families_are_read(tmp_path: Path, family: str) -> None:
    config = {**TINY, "layers": 2, "family": family, "vocabulary_size": 300}
    candidate = {**CANDIDATES["scratch"], "strategy": {"name": "from-scratch", "config": config}}
    candidate["training"] = {**candidate["training"], "epochs": 1}
    splits = {"train": rows(24), "validation": rows(6, start=90)}
    found = measure(train_alone(tmp_path, TASK, splits, {"one": candidate})["one"])
    assert len(found["layers"]) == 2
    assert all(one["relevance"] > 0 for one in found["layers"])


def test_a_model_that_writes_is_refused(tmp_path: Path) -> None:
    task = {"name": "generation", "config": {"text": "message"}}
    config = {**TINY, "family": "llama", "vocabulary_size": 300}
    training = {"epochs": 1, "batch_size": 8, "max_tokens": 16}
    candidate = {"strategy": {"name": "from-scratch", "config": config}, "learner": "causal", "training": training}
    splits = {"train": rows(8).select(["message"]), "validation": rows(4).select(["message"])}
    with pytest.raises(SpecError, match="a model for causal-lm takes no single decision"):
        measure(train_alone(tmp_path, task, splits, {"writer": candidate})["writer"])


def test_columns_of_another_dataset_are_asked_for_by_name(made: dict[str, Made]) -> None:
    store = made["scratch"].place.store
    attempt = store.begin("0" * 64)
    write_parts([pa.table({"text": ["a"]})], attempt.folder / "validation")
    other = store.open_artifact(attempt.publish(kind="dataset", name="other").ref())
    with pytest.raises(DataError, match="has no column 'message'"):
        measure(made["scratch"], other)
    with pytest.raises(SpecError, match="is a model"):
        measure(made["scratch"], store.open_artifact(made["scratch"].model))


def test_shuffled_weights_are_the_same_numbers_elsewhere() -> None:
    anatomy, _, batches = opened("bert")
    layer: Any = anatomy.blocks[0].units
    before, shares = layer.weight.detach().clone(), attribute(anatomy, batches)
    assert rank_correlation(shares.units, shares.units) == pytest.approx(1)
    shuffle_weights(anatomy, seed=0)
    assert not torch.equal(layer.weight, before)
    assert torch.equal(layer.weight.flatten().sort().values, before.flatten().sort().values)
    assert rank_correlation(shares.units, attribute(anatomy, batches).units) < 0.5
