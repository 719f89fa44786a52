"""LoHa, LoKr and VeRA against their kit, and their exact count of weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from espalier_peft_lora import LoHa, LoKr, Vera
from espalier_sdk import Head, Placement, SpecError
from espalier_sdk.testing import check_peft_method
from espalier_sdk.testing.tiny import Family, tiny

HEAD = Head("sequence-classification", outputs=3)
REFUSED = [{"rank": 0}, {"targets": ["no-such-layer"]}]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("loha", {}),
        ("lokr", {}),
        ("lokr", {"rank": 1, "factor": 8, "targets": "all-linear"}),
        ("vera", {"rank": 16, "targets": "all-linear"}),
    ],
)
def test_it_passes_its_kit(name: str, config: dict[str, Any]) -> None:
    families: list[Family] = ["gpt2"] if name in ("loha", "lokr") else []  # PEFT has them for torch's Linear alone
    check_peft_method(name, config=config, refused=REFUSED, refused_families=families)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # per query of width 32: two pairs of (32 x 8) and (8 x 32).
        (LoHa(LoHa.Config(targets=("query",))), 2 * 2 * (32 * 8 + 8 * 32)),
        # 32 = 4 x 8: C is 4 x 4; the rest is 8 x 8, of rank 1: 8 + 8.
        (LoKr(LoKr.Config(targets=("query",), rank=1)), 2 * (4 * 4 + 8 + 8)),
        # at rank 4 the pair has as many weights as the whole: whole.
        (LoKr(LoKr.Config(targets=("query",), rank=4)), 2 * (4 * 4 + 8 * 8)),
        # factor 2: C is 2 x 2, the rest 16 x 16 of rank 1.
        (LoKr(LoKr.Config(targets=("query",), rank=1, factor=2)), 2 * (2 * 2 + 16 + 16)),
        # b of 32 and d of 16.
        (Vera(Vera.Config(targets=("query",), rank=16)), 2 * (32 + 16)),
    ],
)
def test_count_of_weights_is_exact(method: Any, expected: int) -> None:
    assert sum(one.count for one in method.parameters(tiny("bert", HEAD).blueprint)) == expected


def test_vera_counts_the_outputs_of_weights_that_are_kept_transposed() -> None:
    method = Vera(Vera.Config(rank=16))
    # b of 96 for query, key and value together and of 32 for the output, and twice d.
    assert sum(one.count for one in method.parameters(tiny("gpt2", HEAD).blueprint)) == 2 * (96 + 32 + 2 * 16)


@pytest.mark.parametrize("method", [LoHa(LoHa.Config()), LoKr(LoKr.Config())])
def test_weights_that_are_kept_transposed_are_refused_with_the_methods_that_know_them(method: Any) -> None:
    with pytest.raises(SpecError, match=r"c_attn\.weight is kept transposed") as refused:
        method.parameters(tiny("gpt2", HEAD).blueprint)
    assert refused.value.problems[0].remedy == "use lora, adalora or vera"


def test_veras_folder_does_not_depend_on_a_random_generator(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    made = tiny("bert", HEAD)
    base = copy.deepcopy(made.model)
    method = Vera(Vera.Config(rank=16))
    method.save(method.inject(made.model, blueprint=made.blueprint, placement=Placement(), calibration=()), tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors["base_model.vera_A"] = tensors["base_model.vera_A"] + 1  # as if another version had drawn it
    save_file(tensors, path, metadata={"format": "pt"})
    loaded: Any = method.load(base, tmp_path)
    assert torch.equal(loaded.base_model.vera_A["default"], tensors["base_model.vera_A"])
