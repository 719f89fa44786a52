"""The kit for PEFT methods that train beside a base in four bits; without bitsandbytes it skips the test."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from espalier_sdk.fourbit import dequantised, four_bit_layers, load_in_four_bits
from espalier_sdk.model import Head, Placement
from espalier_sdk.planning import clean_name
from espalier_sdk.testing.plugin import check_plugin
from espalier_sdk.testing.tiny import Family, batch, one_thread, tiny

if TYPE_CHECKING:
    import torch

_HEAD = Head("sequence-classification", outputs=3, problem="single-label")
_PLACEMENT = Placement(quantise="nf4")
_FAMILIES: tuple[Family, ...] = ("bert", "llama")


@one_thread()
def check_beside_four_bits(name: str, *, config: Mapping[str, Any] | None = None, tolerance: float = 1e-5) -> None:
    """Checks a PEFT method on a tiny encoder and a tiny decoder in four bits.

    Its traits say that it can; an answer between steps of training changes nothing in the base; steps move what was
    declared and no code; what was saved answers the same on the base opened again in four bits, and, merged into the
    base's values made whole, within `tolerance`.
    """
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: make setup-four-bits")
    plugin = check_plugin("espalier.peft_methods", name)
    method = plugin(plugin.Config.model_validate(dict(config or {})))
    assert method.traits().quantised, f"{name}: its traits say that it does not train beside a base in four bits"
    for family in _FAMILIES:
        with tempfile.TemporaryDirectory() as base, tempfile.TemporaryDirectory() as saved:
            _check(f"{name} on a tiny {family} in four bits", method, family, Path(base), Path(saved), tolerance)


def _check(label: str, method: Any, family: Family, base: Path, saved: Path, tolerance: float) -> None:
    import torch

    made = tiny(family, _HEAD)
    whole: Any = made.model
    whole.save_pretrained(base)
    torch.manual_seed(1)
    model = method.inject(
        load_in_four_bits(base, _HEAD), blueprint=made.blueprint, placement=method.place(_PLACEMENT), calibration=()
    )
    trained = {one.name for one in method.parameters(made.blueprint)} | {
        one.name for one in made.blueprint.parameters if one.name.startswith(made.blueprint.new_modules)
    }
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_own(name) in trained)
    inputs = batch([7, 5, 7])
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    for _ in range(3):
        _answer(model, inputs)  # as validation does it, between two steps
        model.train()
        optimizer.zero_grad()
        model(**inputs, labels=torch.tensor([0, 1, 2])).loss.backward()
        optimizer.step()
    for name, value in model.named_parameters():
        moved = not torch.equal(value, before[name])
        assert moved == (_own(name) in trained), f"{label}: {name} {'moved' if moved else 'did not move'}"
    answer = _answer(model, inputs)
    method.save(model, saved)
    loaded = method.load(load_in_four_bits(base, _HEAD), saved)
    assert torch.equal(_answer(loaded, inputs), answer), f"{label}: opened again, it answers otherwise"
    if method.traits().mergeable:
        merged = method.merge(method.load(dequantised(load_in_four_bits(base, _HEAD)), saved))
        distance = float((_answer(merged, inputs) - answer).abs().max())
        assert distance <= tolerance, f"{label}: merged, its outputs differ by {distance:.2g}, at most {tolerance:g}"
        assert set(four_bit_layers(merged)) == set(four_bit_layers(whole)), f"{label}: it is not plain"


def _own(name: str) -> str:
    clean = clean_name(name)
    return "" if ".original_module." in f".{clean}." else clean


def _answer(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    import torch

    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(**inputs).logits
    return logits
