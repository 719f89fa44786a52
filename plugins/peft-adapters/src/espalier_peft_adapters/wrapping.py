"""What the methods here that PEFT carries out share: wrapping, and a folder that names no path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_sdk import Blueprint, DataError, Placement

if TYPE_CHECKING:
    import torch

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

_TASK_TYPES = {
    "causal-lm": "CAUSAL_LM",
    "masked-lm": "FEATURE_EXTRACTION",
    "sequence-classification": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
    "question-answering": "QUESTION_ANS",
}


def options(blueprint: Blueprint) -> dict[str, Any]:
    """Returns what every PEFT config here is told; modules that the base lacks are trained and saved whole."""
    return {
        "task_type": _TASK_TYPES[blueprint.head.kind],
        "modules_to_save": list(blueprint.new_modules) or None,
    }


def wrap(model: torch.nn.Module, config: Any, placement: Placement) -> torch.nn.Module:
    """Returns the model with PEFT's layers in place of the targets."""
    import peft

    wrapped: torch.nn.Module = peft.get_peft_model(
        model,  # type: ignore[arg-type]
        config,
        autocast_adapter_dtype=placement.adapter_dtype == "float32",
    )
    return wrapped


def save(model: torch.nn.Module, folder: Path) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, as PEFT itself opens them."""
    wrapped: Any = model
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    # PEFT keeps sets, and where the base lay: an adapter must not depend on either.
    config["base_model_name_or_path"] = None
    for field in ("target_modules", "feedforward_modules", "modules_to_save"):
        if config.get(field):
            config[field] = sorted(config[field])
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def load(model: torch.nn.Module, folder: Path, *, kind: str) -> torch.nn.Module:
    """Opens a saved adapter of this kind on its base; DataError where the folder holds none in safetensors."""
    import peft

    if not (folder / WEIGHTS).is_file() or (folder / "adapter_model.bin").exists():
        raise DataError(f"holds no {WEIGHTS}", file=str(folder), remedy="train the candidate again")
    found = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("peft_type")
    if found != kind:
        raise DataError(f"holds an adapter of type {found}", file=str(folder / CONFIG), accepted=kind)
    wrapped: torch.nn.Module = peft.PeftModel.from_pretrained(
        model,  # type: ignore[arg-type]
        str(folder),
        is_trainable=False,
    )
    return wrapped


def merge(model: torch.nn.Module) -> torch.nn.Module:
    """Folds the method into the base and returns the plain model."""
    wrapped: Any = model
    merged: torch.nn.Module = wrapped.merge_and_unload()
    return merged
