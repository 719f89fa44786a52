"""A saved prompt: its weights and what is new in the model as safetensors, and a JSON that tells how it was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_sdk import DataError

if TYPE_CHECKING:
    import torch

WEIGHTS = "prompt.safetensors"
CONFIG = "prompt.json"
PROMPT = "virtual_tokens"  # the module's name in the model, and so the start of its weights' names
_RECORD = "_espalier_prompt"


def mark(model: torch.nn.Module, record: dict[str, Any]) -> None:
    """Notes on the model what `save` will write."""
    setattr(model, _RECORD, record)


def save(model: torch.nn.Module, folder: Path) -> None:
    """Writes the prompt and what is new, with the record."""
    from safetensors.torch import save_file

    record = getattr(model, _RECORD)
    wanted = tuple(f"{module}." for module in (PROMPT, *record["new_modules"]))
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
