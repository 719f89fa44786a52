"""Starts from the base: the base loses what the update begins with, and gets it back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from espalier_peft_lora import Lora
from espalier_sdk import DataError, Head, Placement
from espalier_sdk.testing.tiny import Tiny, batch, tiny

HEAD = Head("sequence-classification", outputs=3)
QUERY = "bert.encoder.layer.0.attention.self.query"
VALUE = QUERY.replace("query", "value")


def made(start: str, **config: Any) -> tuple[Lora, Tiny, Any]:
    """Returns the method, the untouched model and the wrapped one."""
    import torch

    torch.manual_seed(2)
    one = tiny("bert", HEAD)
    base = Tiny(copy.deepcopy(one.model), one.blueprint)
    method = Lora(Lora.Config.model_validate({"start": start, "rank": 4, "targets": ("query",), **config}))
    return method, base, method.inject(one.model, blueprint=one.blueprint, placement=Placement(), calibration=()).eval()


def answer(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(**batch([7, 5])).logits


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_the_output_at_the_start_is_the_bases_up_to_rounding(start: str) -> None:
    _, base, wrapped = made(start)
    assert float((answer(wrapped) - answer(base.model)).abs().max()) < 1e-5


def test_pissa_takes_the_largest_singular_values_out_of_the_base() -> None:
    import torch

    _, base, wrapped = made("pissa")
    before = torch.linalg.svdvals(base.model.get_submodule(QUERY).weight)
    after = torch.linalg.svdvals(wrapped.base_model.model.get_submodule(QUERY).base_layer.weight)
    assert torch.allclose(after[:28], before[4:], atol=1e-5)
    assert float(after[28:].max()) < 1e-5


def test_olora_starts_with_orthonormal_columns() -> None:
    import torch

    _, _, wrapped = made("olora")
    b = wrapped.base_model.model.get_submodule(QUERY).lora_B["default"].weight
    assert torch.allclose(b.T @ b, torch.eye(4), atol=1e-5)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_peft_itself_opens_the_folder_on_the_untouched_base(start: str, tmp_path: Path) -> None:
    import peft
    import torch

    method, base, wrapped = made(start, targets=("value",))
    with torch.no_grad():
        wrapped.base_model.model.get_submodule(VALUE).lora_B["default"].weight.mul_(20)  # as if trained far
    method.save(wrapped, tmp_path)
    opened = peft.PeftModel.from_pretrained(copy.deepcopy(base.model), str(tmp_path))
    assert float((answer(opened) - answer(wrapped)).abs().max()) < 1e-5
    assert float((answer(base.model) - answer(wrapped)).abs().max()) > 1e-4


def test_a_folder_that_lost_its_start_factors_is_refused(tmp_path: Path) -> None:
    method, base, wrapped = made("pissa")
    method.save(wrapped, tmp_path)
    (tmp_path / "start.safetensors").unlink()
    with pytest.raises(DataError, match=r"holds no start\.safetensors"):
        method.load(base.model, tmp_path)
