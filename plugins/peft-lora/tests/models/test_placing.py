"""Ranks placed by sensitivity: the measure, the rounding under a budget, and what PEFT makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from espalier_peft_lora import Lora
from espalier_peft_lora.placing import allocate, ranks_in, sensitivity
from espalier_sdk import Blueprint, DataError, Head, Placement, SpecError
from espalier_sdk.testing.tiny import Family, batch, tiny

HEAD = Head("sequence-classification", outputs=3, problem="single-label")
PLACED = {"placement": "relevance", "targets": "all-linear", "rank": 4}


def batches(seed: int = 0) -> list[dict[str, torch.Tensor]]:
    return [batch([6, 5, 7], seed=seed + at) | {"labels": torch.tensor([0, 1, 2])} for at in range(2)]


def injected(family: Family = "bert", **config: Any) -> tuple[Lora, Any, Blueprint]:
    made = tiny(family, HEAD)
    method = Lora(Lora.Config.model_validate({**PLACED, **config}))
    model = method.inject(made.model, blueprint=made.blueprint, placement=Placement(), calibration=batches())
    return method, model, made.blueprint


@pytest.mark.parametrize(
    ("weights", "costs", "limits", "budget", "expected"),
    [
        # 12 to share as 3 : 1 at a cost of 1: 9 and 3.
        ([3, 1], [1, 1], [99, 99], 12, [9, 3]),
        # The same shares of weights; the second costs three each: 9 / 1 and 3 / 3.
        ([3, 1], [1, 3], [99, 99], 12, [9, 1]),
        # 10 as 1 : 1 : 1 is 3.33 each; the one that is left goes to the first of equals.
        ([1, 1, 1], [1, 1, 1], [99, 99, 99], 10, [4, 3, 3]),
        # 5.4, 2.7, 0.9: two are left, and go to the largest remainders.
        ([6, 3, 1], [1, 1, 1], [99, 99, 99], 9, [5, 3, 1]),
        # What is above the first one's limit goes to the others as 3 : 1.
        ([96, 3, 1], [1, 1, 1], [2, 99, 99], 10, [2, 6, 2]),
        # All are full: the rest of the budget stays.
        ([1, 1], [1, 1], [2, 2], 100, [2, 2]),
        # What the loss does not feel gets nothing, even where something is left.
        ([1, 0], [5, 1], [99, 99], 9, [1, 0]),
    ],
)
def test_whole_ranks_by_largest_remainder_within_the_budget(
    weights: list[float], costs: list[int], limits: list[int], budget: int, expected: list[int]
) -> None:
    assert allocate(weights, costs=costs, limits=limits, budget=budget) == expected


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_placed_ranks_use_the_budget_of_equal_ranks(family: Family) -> None:
    method, model, blueprint = injected(family)
    placed, uniform = (
        sum(one.count for one in infos)
        for infos in (method.placed(model, blueprint=blueprint), method.parameters(blueprint))
    )
    assert uniform - 64 < placed <= uniform, "less than one rank of the cheapest layer, 32 + 32 weights, is left"
    assert len(set(ranks_in(model).values())) > 2


def test_layers_whose_output_is_not_read_get_no_update() -> None:
    made = tiny("bert", HEAD)
    model: Any = made.model
    attention = model.bert.encoder.layer[0].attention
    with torch.no_grad():
        attention.output.dense.weight.zero_()  # so nothing comes through from query, key and value
    method = Lora(Lora.Config.model_validate(PLACED))
    wrapped = method.inject(model, blueprint=made.blueprint, placement=Placement(), calibration=batches())
    ranks = ranks_in(wrapped)
    for name in ("self.query", "self.key", "self.value", "output.dense"):
        assert f"bert.encoder.layer.0.attention.{name}.weight" not in ranks
    assert ranks["bert.encoder.layer.0.output.dense.weight"] > 4


def test_sensitivity_is_the_sum_of_weight_times_mean_gradient_and_leaves_the_model_as_it_was() -> None:
    made = tiny("bert", HEAD)
    target = next(one for one in made.blueprint.parameters if one.name.endswith("layer.1.output.dense.weight"))
    weight = dict(made.model.named_parameters())[target.name]
    weight.requires_grad_(False)
    made.model.train()
    (found,) = sensitivity(made.model, [target], batches())
    assert made.model.training
    assert (weight.requires_grad, weight.grad) == (False, None)
    made.model.eval()
    weight.requires_grad_(True)
    sum(made.model(**one).loss for one in batches()).backward()
    assert found == pytest.approx(float((weight * weight.grad / 2).abs().sum().detach()), rel=1e-5)


def test_the_scale_of_an_update_is_the_same_at_each_rank_and_with_rslora_by_its_root() -> None:
    for stabilised in (False, True):
        _, model, _ = injected(rank_stabilised=stabilised)
        layers = [one for one in model.modules() if hasattr(one, "lora_A")]
        assert len({one.r["default"] for one in layers}) > 1
        for one in layers:
            expected = 8 / one.r["default"] ** 0.5 if stabilised else 2.0
            assert one.scaling["default"] == pytest.approx(expected)


def test_the_folder_names_each_rank_and_peft_itself_opens_it(tmp_path: Path) -> None:
    method, model, _ = injected()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.1)
    method.save(model, tmp_path)
    pattern = json.loads((tmp_path / "adapter_config.json").read_text())["rank_pattern"]
    assert {f"{name}.weight": rank for name, rank in pattern.items()} == ranks_in(model)
    opened = peft.PeftModel.from_pretrained(tiny("bert", HEAD).model, str(tmp_path))
    asked = batch([6, 5], seed=9)
    with torch.no_grad():
        torch.testing.assert_close(opened.eval()(**asked).logits, model.eval()(**asked).logits)


def test_without_batches_or_without_a_gradient_it_says_what_is_wrong() -> None:
    method, made = Lora(Lora.Config.model_validate(PLACED)), tiny("bert", HEAD)
    given: dict[str, Any] = {"blueprint": made.blueprint, "placement": Placement()}
    with pytest.raises(SpecError, match="needs calibration batches"):
        method.inject(made.model, calibration=(), **given)
    model: Any = made.model
    with torch.no_grad():
        model.classifier.weight.zero_()
    with pytest.raises(DataError, match="give no gradient"):
        method.inject(model, calibration=batches(), **given)


def test_on_the_meta_device_ranks_are_equal_because_nothing_can_be_measured() -> None:
    made = tiny("bert", HEAD)
    method = Lora(Lora.Config.model_validate(PLACED))
    with torch.device("meta"):
        model = method.inject(made.model.to("meta"), blueprint=made.blueprint, placement=Placement(), calibration=())
    assert method.placed(model, blueprint=made.blueprint) == method.parameters(made.blueprint)
