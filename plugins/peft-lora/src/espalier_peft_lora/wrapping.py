"""What the methods here share: which layers are adapted, wrapping with PEFT, and a folder that names no path.

Knows nothing about how an update is made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from espalier_sdk import Blueprint, DataError, ParameterInfo, Placement, SpecError

if TYPE_CHECKING:
    import torch

Targets = Literal["attention", "all-linear"] | tuple[str, ...]
TARGETS = "Which linear layers of the blocks: attention's, all, or names that end so."
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

_TASK_TYPES = {
    "causal-lm": "CAUSAL_LM",
    "masked-lm": "FEATURE_EXTRACTION",
    "sequence-classification": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
    "question-answering": "QUESTION_ANS",
}


def find_targets(blueprint: Blueprint, wanted: Targets) -> list[ParameterInfo]:
    """Returns the weights of the linear layers to adapt; SpecError where the base has none, or a name fits none."""
    linear = [
        one
        for one in blueprint.parameters
        if one.role == "block" and 0 < one.depth <= blueprint.blocks and len(one.shape) == 2 and _ends(one, "")
    ]
    if not linear:
        raise SpecError(
            "the base has no linear layers in numbered blocks: its architecture is not known here",
            field="peft",
            accepted="a base with blocks of linear layers, such as BERT- and Llama-like ones",
            remedy="choose another base, or the strategy full-finetune",
        )
    if wanted == "all-linear":
        return linear
    if wanted == "attention":
        found = [one for one in linear if "attention" in one.name.lower() or "attn" in one.name.lower()]
        missing: list[str] = [] if found else [wanted]
    else:
        found = [one for one in linear if any(_ends(one, name) for name in wanted)]
        missing = [name for name in wanted if not any(_ends(one, name) for one in found)]
    if missing or not found:
        ends = sorted({one.name.removesuffix(".weight").rpartition(".")[2] for one in linear})
        raise SpecError(
            f"targets {', '.join(missing) or 'names nothing'}: no linear layer of the base is called so",
            field="peft.config.targets",
            given=str(wanted),
            accepted=f"attention, all-linear, or a list of {', '.join(ends)}",
        )
    return found


def find_untransposed(blueprint: Blueprint, wanted: Targets) -> list[ParameterInfo]:
    """Returns the same for methods whose layers PEFT has for torch's Linear alone; SpecError where one is another."""
    found = find_targets(blueprint, wanted)
    if turned := [target.name for target in found if target.transposed]:
        raise SpecError(
            f"{turned[0]} is kept transposed, and the method knows no such layers",
            field="peft",
            accepted="bases like BERT and Llama",
            remedy="use lora, adalora or vera",
        )
    return found


def sides(target: ParameterInfo) -> tuple[int, int]:
    """Returns how many outputs and inputs a linear layer has, whichever way its weight is kept."""
    rows, columns = target.shape
    return (columns, rows) if target.transposed else (rows, columns)


def are_transposed(targets: Sequence[ParameterInfo]) -> bool:
    """Tells whether weights are kept as (in, out): PEFT asks."""
    return any(target.transposed for target in targets)


def added(target: ParameterInfo, name: str, *shape: int) -> ParameterInfo:
    """Returns what a method adds beside a target, at the target's depth."""
    return ParameterInfo(f"{target.name.removesuffix('.weight')}.{name}", shape, target.depth, "adapter")


def options(blueprint: Blueprint, targets: Sequence[ParameterInfo]) -> dict[str, Any]:
    """Returns what every PEFT config here is told; modules that the base lacks are trained and saved whole."""
    return {
        "task_type": _TASK_TYPES[blueprint.head.kind],
        "target_modules": [target.name.removesuffix(".weight") for target in targets],
        "modules_to_save": list(blueprint.new_modules) or None,
    }


def wrap(model: torch.nn.Module, config: Any, placement: Placement) -> torch.nn.Module:
    """Returns the model with PEFT's layers in place of the targets; SpecError where PEFT has none for such a layer."""
    import peft

    try:
        wrapped: torch.nn.Module = peft.get_peft_model(
            model,  # type: ignore[arg-type]
            config,
            autocast_adapter_dtype=placement.adapter_dtype == "float32",
        )
    except (TypeError, ValueError) as error:  # which of them depends on the method
        raise SpecError(
            f"the method cannot adapt a layer of the base: {str(error).splitlines()[0]}",
            field="peft.config.targets",
            remedy="name other layers in `targets`, or choose another method: lora takes most kinds of layers",
        ) from error
    return wrapped


def save(model: torch.nn.Module, folder: Path) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, as PEFT itself opens them."""
    wrapped: Any = model
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    # PEFT keeps sets, and where the base lay: an adapter must not depend on either.
    config["base_model_name_or_path"] = None
    for field in ("target_modules", "modules_to_save"):
        if config.get(field):
            config[field] = sorted(config[field])
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def load(model: torch.nn.Module, folder: Path, *, kind: str, **changes: Any) -> torch.nn.Module:
    """Opens a saved adapter of this kind on its base; DataError where the folder holds none in safetensors."""
    import peft

    if not (folder / WEIGHTS).is_file() or (folder / "adapter_model.bin").exists():
        raise DataError(f"holds no {WEIGHTS}", file=str(folder), remedy="train the candidate again")
    found = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("peft_type")
    if found != kind:
        raise DataError(f"holds an adapter of type {found}", file=str(folder / CONFIG), accepted=kind)
    config = peft.PeftConfig.from_pretrained(str(folder))
    for name, value in changes.items():
        setattr(config, name, value)
    wrapped: torch.nn.Module = peft.PeftModel.from_pretrained(
        model,  # type: ignore[arg-type]
        str(folder),
        is_trainable=False,
        config=config,
    )
    return wrapped


def merge(model: torch.nn.Module) -> torch.nn.Module:
    """Adds the updates to the frozen weights and returns the plain model."""
    wrapped: Any = model
    merged: torch.nn.Module = wrapped.merge_and_unload()
    return merged


def _ends(parameter: ParameterInfo, name: str) -> bool:
    return f".{parameter.name}".endswith(f".{name}.weight" if name else ".weight")
