"""(IA)3, BitFit and tuned norms against their kit, their exact count of weights, and whom they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from espalier_peft_adapters import BitFit, Ia3, LnTuning
from espalier_sdk import Blueprint, Head, ParameterInfo, Placement, SpecError
from espalier_sdk.testing import check_beside_four_bits, check_peft_method
from espalier_sdk.testing.tiny import Family, batch, tiny

HEAD = Head("sequence-classification", outputs=3)


def test_ia3_passes_its_kit() -> None:
    check_peft_method("ia3", refused=[{"feed_forward": "yes please"}, {"rank": 8}], refused_families=["gpt2"])


def test_bitfit_passes_its_kit_and_refuses_a_model_without_biases() -> None:
    check_peft_method("bitfit", refused=[{"norms": "some"}], refused_families=["llama"])


def test_ln_tuning_passes_its_kit() -> None:
    check_peft_method("ln-tuning", refused=[{"rank": 8}])


@pytest.mark.parametrize("name", ["ia3", "ln-tuning"])
def test_it_trains_beside_a_base_in_four_bits(name: str) -> None:
    check_beside_four_bits(name)


@pytest.mark.parametrize(
    ("method", "family", "expected"),
    [
        # keys and values of 32, and 48 inner units, in each of two blocks
        (Ia3(Ia3.Config()), "bert", 2 * (32 + 32 + 48)),
        (Ia3(Ia3.Config(feed_forward=False)), "bert", 2 * (32 + 32)),
        # two of four heads for keys and values: 16
        (Ia3(Ia3.Config()), "llama", 2 * (16 + 16 + 48)),
        # five biases of 32 and one of 48, and the pooler's; norms: two per block, one of the embeddings
        (BitFit(BitFit.Config(norms=False)), "bert", 2 * (5 * 32 + 48) + 32),
        (BitFit(BitFit.Config()), "bert", 2 * (5 * 32 + 48) + 32 + (2 * 2 + 1) * 32),
        # weight and bias of five norms; Llama's have weights alone, with one at the end
        (LnTuning(LnTuning.Config()), "bert", (2 * 2 + 1) * 2 * 32),
        (LnTuning(LnTuning.Config()), "llama", (2 * 2 + 1) * 32),
    ],
)
def test_count_of_weights_is_exact(method: Any, family: Family, expected: int) -> None:
    assert sum(one.count for one in method.parameters(tiny(family, HEAD).blueprint)) == expected


def test_merged_biases_are_the_old_ones_with_their_change() -> None:
    import torch

    made = tiny("bert", HEAD)
    method = BitFit(BitFit.Config())
    model: Any = method.inject(made.model, blueprint=made.blueprint, placement=Placement(), calibration=())
    dense = model.bert.encoder.layer[0].output.dense
    before = dense.bias.detach().clone()
    torch.nn.init.normal_(dense.bias_delta)
    change = dense.bias_delta.detach().clone()
    merged: Any = method.merge(model)
    assert torch.equal(merged.bert.encoder.layer[0].output.dense.bias, before + change)
    assert not any(module._forward_hooks for module in merged.modules())
    merged(**batch([7, 5]))


def test_a_base_with_one_layer_for_queries_keys_and_values_is_refused_by_ia3() -> None:
    shapes = {"attention.qkv": (24, 8), "attention.dense": (8, 8), "mlp.up": (32, 8), "mlp.down": (8, 32)}
    parameters = tuple(ParameterInfo(f"layers.0.{n}.weight", shape, 1, "block") for n, shape in shapes.items())
    with pytest.raises(SpecError, match="keys and values of their own"):
        Ia3(Ia3.Config()).parameters(Blueprint({}, HEAD, 1, parameters, ()))


@pytest.mark.parametrize(("blocks", "words"), [(0, "no numbered blocks"), (1, "block 1 of the base is not attention")])
def test_a_base_of_an_unknown_layout_is_refused_by_ia3(blocks: int, words: str) -> None:
    mixer = ParameterInfo("layers.0.mixer.in_proj.weight", (32, 8), blocks, "block")
    with pytest.raises(SpecError, match=words) as refused:
        Ia3(Ia3.Config()).parameters(Blueprint({}, HEAD, blocks, (mixer,), ()))
    assert refused.value.problems[0].field == "peft"


def test_a_base_without_norms_is_refused_by_ln_tuning() -> None:
    with pytest.raises(SpecError, match="no norms"):
        LnTuning(LnTuning.Config()).parameters(Blueprint({}, HEAD, 0, (), ()))
