"""LoRA: a frozen weight W gets a trained low-rank update, W + (alpha / rank) B A (Hu et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from espalier_sdk import (
    Blueprint,
    DataError,
    HeadKind,
    ParameterInfo,
    PeftTraits,
    Placement,
    PluginConfig,
    SpecError,
)
from pydantic import Field

if TYPE_CHECKING:
    import torch

_TASK_TYPES = {
    "causal-lm": "CAUSAL_LM",
    "masked-lm": "FEATURE_EXTRACTION",
    "sequence-classification": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
    "question-answering": "QUESTION_ANS",
}


class LoraConfig(PluginConfig):
    """Rank, scale and place of the updates."""

    rank: int = Field(default=8, ge=1, le=1024, description="Rank of each update; 8 is usual.")
    alpha: float | None = Field(default=None, gt=0, description="Scale of the update before rank; default: 2 x rank.")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="Dropout in front of each update, in training.")
    targets: Literal["attention", "all-linear"] | tuple[str, ...] = Field(
        default="attention", description="Which linear layers of the blocks: attention's, all, or names that end so."
    )


class Lora:
    """Trains low-rank updates beside linear layers of the blocks; the output is unchanged at step 0."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[LoraConfig]] = LoraConfig

    def __init__(self, config: LoraConfig) -> None:
        self._config = config

    def traits(self) -> PeftTraits:
        """Returns what LoRA can do: every head and ZeRO stage, merged, and mixed in a batch."""
        return PeftTraits(
            zero_stages=frozenset({0, 1, 2, 3}),
            heads=frozenset(get_args(HeadKind)),
            identity_at_start=True,
            mergeable=True,
            mixes_in_batch=True,
        )

    def parameters(self, blueprint: Blueprint) -> tuple[ParameterInfo, ...]:
        """Returns A (rank, in) and B (out, rank) for each target."""
        rank = self._config.rank
        found: list[ParameterInfo] = []
        for target in self._targets(blueprint):
            module = target.name.removesuffix(".weight")
            out, width = target.shape
            found.append(ParameterInfo(f"{module}.lora_A.weight", (rank, width), target.depth, "adapter"))
            found.append(ParameterInfo(f"{module}.lora_B.weight", (out, rank), target.depth, "adapter"))
        return tuple(found)

    def place(self, placement: Placement) -> Placement:
        """Returns the placement; under ZeRO-3 adapters take the base's dtype, else its partitions do not match."""
        from dataclasses import replace

        return replace(placement, adapter_dtype="model") if placement.zero_stage == 3 else placement

    def inject(
        self,
        model: torch.nn.Module,
        *,
        blueprint: Blueprint,
        placement: Placement,
        calibration: Iterable[Mapping[str, torch.Tensor]],
    ) -> torch.nn.Module:
        """Wraps the model with PEFT's LoRA; modules that the base lacks are trained and saved whole."""
        import peft

        config = peft.LoraConfig(
            task_type=_TASK_TYPES[blueprint.head.kind],
            r=self._config.rank,
            lora_alpha=self._config.alpha or 2 * self._config.rank,
            lora_dropout=self._config.dropout,
            target_modules=[target.name.removesuffix(".weight") for target in self._targets(blueprint)],
            modules_to_save=list(blueprint.new_modules) or None,
        )
        return peft.get_peft_model(model, config, autocast_adapter_dtype=placement.adapter_dtype == "float32")

    def after_step(self, model: torch.nn.Module, *, step: int, steps: int) -> None:
        """Does nothing: ranks are fixed."""

    def extra_state(self, model: torch.nn.Module) -> Mapping[str, torch.Tensor]:
        """Returns nothing: `state_dict` has all."""
        return {}

    def restore(self, model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Does nothing: there is no extra state."""

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        """Writes adapter_config.json and adapter_model.safetensors, as PEFT itself opens them."""
        import json

        wrapped: Any = model
        wrapped.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        # PEFT keeps sets, and where the base lay: an adapter must not depend on either.
        config["base_model_name_or_path"] = None
        config["target_modules"] = sorted(config["target_modules"])
        if config.get("modules_to_save"):
            config["modules_to_save"] = sorted(config["modules_to_save"])
        path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")

    def load(self, model: torch.nn.Module, folder: Path) -> torch.nn.Module:
        """Opens a saved adapter on its base; DataError where the folder holds none in safetensors."""
        import peft

        if not (folder / "adapter_model.safetensors").is_file() or (folder / "adapter_model.bin").exists():
            raise DataError("holds no adapter_model.safetensors", file=str(folder), remedy="train the candidate again")
        wrapped: torch.nn.Module = peft.PeftModel.from_pretrained(model, str(folder), is_trainable=False)
        return wrapped

    def merge(self, model: torch.nn.Module) -> torch.nn.Module:
        """Adds the updates to the frozen weights and returns the plain model."""
        wrapped: Any = model
        merged: torch.nn.Module = wrapped.merge_and_unload()
        return merged

    def _targets(self, blueprint: Blueprint) -> list[ParameterInfo]:
        linear = [
            parameter
            for parameter in blueprint.parameters
            if parameter.role == "block" and 0 < parameter.depth <= blueprint.blocks and len(parameter.shape) == 2
        ]
        wanted = self._config.targets
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


def _ends(parameter: ParameterInfo, name: str) -> bool:
    return f".{parameter.name}".endswith(f".{name}.weight")
