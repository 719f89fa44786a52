"""A base whose architecture the methods here do not know is refused with the way out, by each of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from espalier_peft_lora import AdaLora, LoHa, LoKr, Lora, Vera
from espalier_sdk import Blueprint, Head, ParameterInfo, Placement, SpecError
from espalier_sdk.testing.tiny import tiny

HEAD = Head("sequence-classification", outputs=3)
METHODS = [Lora, AdaLora, LoHa, LoKr, Vera]
each = pytest.mark.parametrize("method", METHODS, ids=lambda one: one.__name__.lower())


class Router(torch.nn.Module):
    """Has a weight as a linear layer has one, and is none."""

    def __init__(self, weight: torch.nn.Parameter) -> None:
        super().__init__()
        self.weight = weight


@each
@pytest.mark.parametrize("targets", ["attention", "all-linear", ("query",)])
@pytest.mark.parametrize(
    ("blocks", "name", "shape"),
    [
        (0, "groups.0.attention.query.weight", (8, 8)),  # as ALBERT, whose blocks are one, used again and again
        (1, "layers.0.attention.query.weight", (8, 8, 3)),  # convolutions alone
        (1, "layers.0.attention.query", (8, 8)),  # a bare parameter
    ],
)
def test_a_base_without_linear_layers_in_blocks_is_refused(
    method: Any, targets: Any, blocks: int, name: str, shape: tuple[int, ...]
) -> None:
    base = Blueprint({}, HEAD, blocks, (ParameterInfo(name, shape, 1, "block"),), ())
    with pytest.raises(SpecError, match="no linear layers in numbered blocks") as refused:
        method(method.Config(targets=targets)).parameters(base)
    assert refused.value.problems[0].field == "peft"
    assert "full-finetune" in str(refused.value.problems[0].remedy)


@each
def test_a_layer_that_only_looks_linear_is_refused(method: Any) -> None:
    made = tiny("bert", HEAD)
    attention: Any = made.model.bert.encoder.layer[0].attention.self  # type: ignore[union-attr, index]
    attention.query = Router(attention.query.weight)
    plugin = method(method.Config(targets=("query",)))
    with pytest.raises(SpecError, match=r"the method cannot adapt a layer of the base: .*Router") as refused:
        plugin.inject(made.model, blueprint=made.blueprint, placement=Placement(), calibration=())
    assert refused.value.problems[0].field == "peft.config.targets"
