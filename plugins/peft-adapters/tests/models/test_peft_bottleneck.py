"""Bottleneck adapters against their kit, their places, and what they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from espalier_peft_adapters import BitFit, BottleneckAdapters
from espalier_sdk import Blueprint, DataError, Head, ParameterInfo, Placement, SpecError
from espalier_sdk.testing import check_peft_method
from espalier_sdk.testing.tiny import Family, batch, tiny

HEAD = Head("sequence-classification", outputs=3)


def adapters(**config: Any) -> BottleneckAdapters:
    return BottleneckAdapters(BottleneckAdapters.Config.model_validate(config))


def inject(method: Any, made: Any) -> Any:
    return method.inject(made.model, blueprint=made.blueprint, placement=Placement(), calibration=())


@pytest.mark.parametrize(
    "config", [{}, {"layout": "houlsby", "activation": "gelu", "reduction": 4}, {"layout": "parallel"}]
)
def test_bottleneck_passes_its_kit(config: dict[str, Any]) -> None:
    refused = [{"reduction": 0}, {"layout": "serial"}, {"scale": 0}]
    check_peft_method("bottleneck", config=config, refused=refused, refused_families=["gpt2"])


@pytest.mark.parametrize(
    ("family", "layout", "places"),
    [
        ("bert", "houlsby", ["bert.encoder.layer.0.attention.output.dense", "bert.encoder.layer.0.output.dense"]),
        ("bert", "pfeiffer", ["bert.encoder.layer.0.output.dense"]),
        ("llama", "houlsby", ["model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj"]),
        ("llama", "parallel", ["model.layers.0.mlp.down_proj"]),
    ],
)
def test_adapters_stand_where_the_papers_put_them(family: Family, layout: str, places: list[str]) -> None:
    found = adapters(layout=layout, reduction=4).parameters(tiny(family, HEAD).blueprint)
    first = [one for one in found if one.depth == 1]
    assert list(dict.fromkeys(one.name.partition(".adapter")[0] for one in first)) == places
    # width 32 over 4 is 8: two matrices of 32 x 8, a bias of 8 and one of 32.
    assert sum(one.count for one in first) == len(places) * (2 * 32 * 8 + 8 + 32)


def test_a_parallel_adapter_reads_what_the_feed_forward_part_reads_and_is_scaled_by_four() -> None:
    import torch

    model = inject(adapters(layout="parallel"), tiny("llama", HEAD))
    mlp = model.model.layers[0].mlp
    torch.nn.init.normal_(mlp.down_proj.adapter.up.weight)
    x = torch.randn(2, 5, 32)
    plain = torch.nn.functional.linear(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x), mlp.down_proj.weight)
    adapter = mlp.down_proj.adapter
    expected = plain + 4 * adapter.up(torch.relu(adapter.down(x)))
    assert torch.allclose(mlp(x), expected, atol=1e-6)
    assert adapter.held is None


def test_adapters_of_float32_work_in_a_base_of_bfloat16() -> None:
    import torch

    made = tiny("bert", HEAD)
    made.model.to(torch.bfloat16)
    model = inject(adapters(layout="houlsby"), made)
    assert model.bert.encoder.layer[0].output.dense.adapter.up.weight.dtype == torch.float32
    assert model(**batch([7, 5])).logits.dtype == torch.bfloat16


def test_a_base_whose_blocks_are_of_another_kind_is_refused() -> None:
    # As GPT-2 has them: the weights of the feed-forward part are transposed.
    parameters = tuple(
        ParameterInfo(f"h.0.{name}.weight", shape, 1, "block")
        for name, shape in {"attn.c_proj": (8, 8), "mlp.c_fc": (8, 32), "mlp.c_proj": (32, 8)}.items()
    )
    with pytest.raises(SpecError, match="block 1 of the base"):
        adapters().parameters(Blueprint({}, HEAD, 1, parameters, ()))


def test_a_folder_of_another_method_or_of_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no adapter\.safetensors"):
        adapters().load(tiny("bert", HEAD).model, tmp_path)
    adapters().save(inject(adapters(), tiny("bert", HEAD)), tmp_path)
    with pytest.raises(DataError, match="holds bottleneck"):
        BitFit(BitFit.Config()).load(tiny("bert", HEAD).model, tmp_path)


def test_adapters_of_another_base_are_refused(tmp_path: Path) -> None:
    adapters().save(inject(adapters(), tiny("bert", HEAD)), tmp_path)
    with pytest.raises(DataError, match="has no place in this base"):
        adapters().load(tiny("bert", Head("sequence-classification", outputs=2)).model, tmp_path)
