"""Starts that read the base: the update begins as the base's own factors, and the base keeps the rest.

PiSSA takes the principal singular vectors (Meng et al. 2024), OLoRA the first columns of a QR decomposition
(Büyükakyüz 2024). The base is changed by it, so the start factors lie beside the adapter: they are subtracted again
from an untouched base when it is loaded. PEFT instead decomposes the base anew, which gives other bits elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_sdk import DataError, SpecError, clean_name

if TYPE_CHECKING:
    import torch

START = "start.safetensors"


def factorise(model: torch.nn.Module, start: str) -> None:
    """Moves the base's leading factors into A and B, layer by layer; the output changes by rounding alone."""
    import torch

    with torch.no_grad():
        for name, layer in _layers(model):
            weight = _weight(layer)
            if not weight.is_floating_point():
                raise SpecError(f"{name} is quantised: {start} needs its weights", field="peft.config.start")
            scale, rank = layer.scaling["default"], layer.r["default"]
            a, b = (_pissa if start == "pissa" else _olora)(weight.float(), rank, scale)
            layer.lora_A["default"].weight.copy_(a)  # (rank, in)
            layer.lora_B["default"].weight.copy_(b)  # (out, rank)
            _subtract(layer, layer.lora_A["default"].weight.clone(), layer.lora_B["default"].weight.clone())


def save_starts(model: torch.nn.Module, folder: Path) -> None:
    """Writes the start factors of every layer."""
    from safetensors.torch import save_file

    tensors = {}
    for name, layer in _layers(model):
        tensors[f"{clean_name(name)}.start_A"] = layer.start_A.contiguous()
        tensors[f"{clean_name(name)}.start_B"] = layer.start_B.contiguous()
    save_file(tensors, folder / START)


def subtract_starts(model: torch.nn.Module, folder: Path) -> None:
    """Takes the start factors out of an untouched base, by the same arithmetic as at the start of training."""
    import torch
    from safetensors.torch import load_file

    if not (folder / START).is_file():
        raise DataError(f"holds no {START}", file=str(folder), remedy="train the candidate again")
    tensors = load_file(folder / START)
    with torch.no_grad():
        for name, layer in _layers(model):
            clean = clean_name(name)
            _subtract(layer, tensors[f"{clean}.start_A"], tensors[f"{clean}.start_B"])


def _layers(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def _weight(layer: Any) -> torch.Tensor:
    """Returns the frozen weight as (out, in), a view of it where it is kept transposed."""
    weight: torch.Tensor = layer.get_base_layer().weight
    return weight.T if layer.fan_in_fan_out else weight


def _pissa(weight: torch.Tensor, rank: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    root = (s[:rank] / scale).sqrt()
    return root[:, None] * vh[:rank], u[:, :rank] * root


def _olora(weight: torch.Tensor, rank: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    q, r = torch.linalg.qr(weight)
    return r[:rank], q[:, :rank]


def _subtract(layer: Any, a: torch.Tensor, b: torch.Tensor) -> None:
    """Reduces the frozen weight; the factors are kept as buffers, so that checkpoints carry them."""
    weight = _weight(layer)
    a, b = a.to(weight.device), b.to(weight.device)
    weight.copy_(weight.float() - layer.scaling["default"] * (b.float() @ a.float()))
    layer.register_buffer("start_A", a)
    layer.register_buffer("start_B", b)
