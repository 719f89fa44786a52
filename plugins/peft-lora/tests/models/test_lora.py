"""LoRA and its variants against their kit, their exact count of weights, and what their folders hold."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from espalier_peft_lora import Lora
from espalier_sdk import DataError, Head, Placement, SpecError
from espalier_sdk.testing import check_peft_method
from espalier_sdk.testing.tiny import Family, Tiny, contents, tiny

HEAD = Head("sequence-classification", outputs=3)


def inject(method: Lora, made: Tiny) -> Any:
    return method.inject(made.model, blueprint=made.blueprint, placement=Placement(), calibration=())


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"rank": 2, "alpha": 3, "targets": "all-linear", "dropout": 0, "rank_stabilised": True},
        {"dora": True},
        {"start": "pissa", "targets": "all-linear"},
        {"start": "olora", "dora": True},
        {"placement": "relevance", "rank": 3, "targets": "all-linear", "calibration_batches": 2},
        {"placement": "relevance", "start": "pissa", "rank_stabilised": True},
    ],
)
def test_lora_passes_its_kit(config: dict[str, Any]) -> None:
    refused = [{"rank": 0}, {"alpha": 0}, {"dropout": 1}, {"targets": ["no-such-layer"]}, {"targets": []}]
    refused += [{"start": "loftq"}, {"start": "pissa", "rank": 33}]
    refused += [{"placement": "relevance", "dora": True}, {"calibration_batches": 2}]
    check_peft_method("lora", config=config, refused=refused)


@pytest.mark.parametrize(
    ("family", "targets", "expected"),
    [
        # BERT: query, key, value and output of width 32: 4 x r (32 + 32) per block.
        ("bert", "attention", 2 * 4 * 8 * (32 + 32)),
        # and the feed-forward pair 32 -> 48 -> 32.
        ("bert", "all-linear", 2 * (4 * 8 * (32 + 32) + 2 * 8 * (32 + 48))),
        # Llama: 4 heads, 2 of them for keys and values, so k and v have 16 outputs.
        ("llama", "attention", 2 * (2 * 8 * (32 + 32) + 2 * 8 * (32 + 16))),
        # and gate, up and down between 32 and 48.
        ("llama", "all-linear", 2 * (2 * 8 * (32 + 32) + 2 * 8 * (32 + 16) + 3 * 8 * (32 + 48))),
        ("llama", ("q_proj",), 2 * 8 * (32 + 32)),
        # GPT-2: 32 -> 96 for query, key and value together, and 32 -> 32.
        ("gpt2", "attention", 2 * (8 * (32 + 96) + 8 * (32 + 32))),
        ("gpt2", "all-linear", 2 * (8 * (32 + 96) + 8 * (32 + 32) + 2 * 8 * (32 + 48))),
    ],
)
def test_count_of_weights_is_exact(family: Family, targets: Any, expected: int) -> None:
    blueprint = tiny(family, HEAD).blueprint
    parameters = Lora(Lora.Config(rank=8, targets=targets)).parameters(blueprint)
    assert sum(one.count for one in parameters) == expected


def test_dora_adds_one_length_per_output() -> None:
    plain, dora = (Lora(Lora.Config(dora=dora)).parameters(tiny("bert", HEAD).blueprint) for dora in (False, True))
    assert sum(one.count for one in dora) - sum(one.count for one in plain) == 2 * 4 * 32


@pytest.mark.parametrize(
    ("config", "stages", "identity", "mixes", "reference"),
    [
        ({}, {0, 1, 2, 3}, True, True, "disable"),
        ({"rank_stabilised": True}, {0, 1, 2, 3}, True, True, "disable"),
        ({"dora": True}, {0, 1, 2}, True, False, "disable"),
        ({"start": "pissa"}, {0, 1, 2}, False, False, "copy"),
        ({"start": "olora"}, {0, 1, 2}, False, False, "copy"),
        ({"placement": "relevance"}, {0, 1, 2}, True, True, "disable"),
    ],
)
def test_traits_follow_the_variant(
    config: dict[str, Any], stages: set[int], identity: bool, mixes: bool, reference: str
) -> None:
    traits = Lora(Lora.Config.model_validate(config)).traits()
    assert (traits.zero_stages, traits.identity_at_start) == (stages, identity)
    assert (traits.mixes_in_batch, traits.reference) == (mixes, reference)


def test_a_target_that_the_base_lacks_is_refused_beside_one_that_it_has() -> None:
    with pytest.raises(SpecError, match="targets quary: no linear layer") as refused:
        Lora(Lora.Config(targets=("key", "quary"))).parameters(tiny("bert", HEAD).blueprint)
    assert "query" in str(refused.value.problems[0].accepted)


def test_a_target_is_a_whole_name_not_an_ending() -> None:
    with pytest.raises(SpecError, match="ery"):
        Lora(Lora.Config(targets=("ery",))).parameters(tiny("bert", HEAD).blueprint)


def test_adapters_take_the_bases_dtype_under_zero_3_only() -> None:
    method = Lora(Lora.Config())
    assert method.place(Placement(zero_stage=3)).adapter_dtype == "model"
    assert method.place(Placement(zero_stage=2)).adapter_dtype == "float32"


def test_saved_adapter_names_no_base_and_does_not_depend_on_where_it_lay(tmp_path: Path) -> None:
    made = tiny("bert", HEAD)
    folders = []
    for name in ("one", "another-place"):
        import torch

        model: Any = copy.deepcopy(made.model)
        model.name_or_path = model.config._name_or_path = str(tmp_path / name / "base")
        method = Lora(Lora.Config())
        torch.manual_seed(5)
        wrapped = method.inject(model, blueprint=made.blueprint, placement=Placement(), calibration=())
        method.save(wrapped, tmp_path / name)
        folders.append(contents(tmp_path / name))
    assert folders[0] == folders[1]
    assert set(folders[0]) == {"adapter_config.json", "adapter_model.safetensors"}
    assert json.loads(folders[0]["adapter_config.json"])["base_model_name_or_path"] is None


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    made = tiny("bert", HEAD)
    method = Lora(Lora.Config())
    method.save(inject(method, made), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"peft_type": "IA3"}))
    with pytest.raises(DataError, match="adapter of type IA3"):
        method.load(tiny("bert", HEAD).model, tmp_path)


def test_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(DataError, match=r"holds no adapter_model\.safetensors"):
        Lora(Lora.Config()).load(tiny("bert", HEAD).model, tmp_path)
