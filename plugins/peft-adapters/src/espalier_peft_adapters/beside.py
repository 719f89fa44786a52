"""Methods that put parameters beside a model's own, without PEFT: their folder, and the hooks' way out.

The model stays itself, so that names, types and `generate` are the base's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_sdk import DataError, Placement

if TYPE_CHECKING:
    import torch

WEIGHTS = "adapter.safetensors"
CONFIG = "adapter.json"
_RECORD = "_espalier_beside"


def mark(model: torch.nn.Module, record: Mapping[str, Any], *, added: Sequence[str]) -> None:
    """Notes on the model what `save` will need: a record for JSON, and the names of what was added."""
    setattr(model, _RECORD, (dict(record), tuple(added)))


def own_dtype(module: torch.nn.Module, placement: Placement) -> torch.dtype:
    """Returns the type that new parameters beside this module take."""
    import torch

    weight: Any = module.weight
    dtype: torch.dtype = weight.dtype if placement.adapter_dtype == "model" else torch.float32
    return dtype


def save(model: torch.nn.Module, folder: Path) -> None:
    """Writes what was added and what is new, with the record."""
    from safetensors.torch import save_file

    record, added = getattr(model, _RECORD)
    wanted = (*added, *(f"{module}." for module in record["new_modules"]))
    tensors = {name: value for name, value in sorted(model.state_dict().items()) if name.startswith(wanted)}
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(record, indent=2, sort_keys=True), encoding="utf-8")


def read_record(folder: Path, method: str) -> dict[str, Any]:
    """Returns the record of a saved method; DataError where the folder holds none, or another's."""
    if not (folder / WEIGHTS).is_file() or not (folder / CONFIG).is_file():
        raise DataError(f"holds no {WEIGHTS}", file=str(folder), remedy="train the candidate again")
    record: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if record["method"] != method:
        raise DataError(f"holds {record['method']}", file=str(folder / CONFIG), accepted=method)
    return record


def fill(model: torch.nn.Module, folder: Path) -> None:
    """Copies the saved tensors into a model that has their places; DataError where one does not fit."""
    from safetensors.torch import load_file

    tensors = load_file(folder / WEIGHTS)
    places = model.state_dict()
    wrong = [name for name, value in tensors.items() if name not in places or places[name].shape != value.shape]
    if wrong:
        raise DataError(
            f"{wrong[0]} has no place in this base", file=str(folder / WEIGHTS), remedy="open it on its own base"
        )
    model.load_state_dict(tensors, strict=False)


def unhook(module: torch.nn.Module, hook: Any) -> None:
    """Takes a forward hook off a module."""
    for key, found in list(module._forward_hooks.items()):
        if found is hook:
            del module._forward_hooks[key]
