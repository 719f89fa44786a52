"""LoRA: a frozen weight W gets a trained low-rank update, W + (alpha / rank) B A (Hu et al. 2022), and its variants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from espalier_sdk import Blueprint, HeadKind, ParameterInfo, PeftTraits, Placement, PluginConfig, SpecError, ZeroStage
from pydantic import Field

from espalier_peft_lora import starts, wrapping

if TYPE_CHECKING:
    import torch


class LoraConfig(PluginConfig):
    """Rank, scale, place and start of the updates."""

    rank: int = Field(default=8, ge=1, le=1024, description="Rank of each update; 8 is usual.")
    alpha: float | None = Field(default=None, gt=0, description="Scale of the update before rank; default: 2 x rank.")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="Dropout in front of each update, in training.")
    targets: wrapping.Targets = Field(default="attention", description=wrapping.TARGETS)
    rank_stabilised: bool = Field(
        default=False, description="rsLoRA: alpha is divided by the root of rank (Kalajdzievski 2023)."
    )
    dora: bool = Field(
        default=False, description="DoRA: the length of each output's weights is trained apart (Liu et al. 2024)."
    )
    start: Literal["zero", "pissa", "olora"] = Field(
        default="zero",
        description="Where updates begin: at zero, or at the base's leading factors, which the base then lacks: "
        "pissa by singular values (Meng et al. 2024), olora by QR (Büyükakyüz 2024).",
    )


class Lora:
    """Trains low-rank updates beside linear layers of the blocks."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[LoraConfig]] = LoraConfig

    def __init__(self, config: LoraConfig) -> None:
        self._config = config

    def traits(self) -> PeftTraits:
        """Returns what this variant can do.

        DoRA and the starts from the base read whole base weights, which ZeRO-3 does not hold, and PEFT cannot mix
        them in a batch. After a start from the base the output is the base's up to rounding only, and the base with
        the update off is not what it was: a reference is a copy.
        """
        plain = self._config.start == "zero"
        reads_base = self._config.dora or not plain
        stages: frozenset[ZeroStage] = frozenset({0, 1, 2} if reads_base else {0, 1, 2, 3})
        return PeftTraits(
            zero_stages=stages,
            heads=frozenset(get_args(HeadKind)),
            identity_at_start=plain,
            mergeable=True,
            mixes_in_batch=not reads_base,
            reference="disable" if plain else "copy",
        )

    def parameters(self, blueprint: Blueprint) -> tuple[ParameterInfo, ...]:
        """Returns A (rank, in) and B (out, rank) for each target, and with DoRA its lengths (out)."""
        rank = self._config.rank
        found: list[ParameterInfo] = []
        for target in self._targets(blueprint):
            out, width = target.shape
            found.append(wrapping.added(target, "lora_A.weight", rank, width))
            found.append(wrapping.added(target, "lora_B.weight", out, rank))
            if self._config.dora:
                found.append(wrapping.added(target, "lora_magnitude_vector.weight", out))
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
            r=self._config.rank,
            lora_alpha=self._config.alpha or 2 * self._config.rank,  # type: ignore[arg-type]
            lora_dropout=self._config.dropout,
            use_rslora=self._config.rank_stabilised,
            use_dora=self._config.dora,
            bias="none",
            **wrapping.options(blueprint, self._targets(blueprint)),
        )
        wrapped = wrapping.wrap(model, config, placement)
        if self._config.start != "zero":
            starts.factorise(wrapped, self._config.start)
            config.init_lora_weights = self._config.start  # what the folder says, so that PEFT itself starts alike
        return wrapped

    def after_step(self, model: torch.nn.Module, *, step: int, steps: int) -> None:
        """Does nothing: ranks are fixed."""

    def extra_state(self, model: torch.nn.Module) -> Mapping[str, torch.Tensor]:
        """Returns nothing: `state_dict` has all."""
        return {}

    def restore(self, model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Does nothing: there is no extra state."""

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        """Writes a folder that PEFT itself opens, and beside it what a start from the base took out of the base."""
        wrapping.save(model, folder)
        if self._config.start != "zero":
            starts.save_starts(model, folder)

    def load(self, model: torch.nn.Module, folder: Path) -> torch.nn.Module:
        """Opens a saved adapter on its untouched base; DataError where the folder holds none in safetensors."""
        # True: else PEFT factorises the base itself, and what it subtracts may differ in the last bits.
        loaded = wrapping.load(model, folder, kind="LORA", init_lora_weights=True)
        if self._config.start != "zero":
            starts.subtract_starts(loaded, folder)
        return loaded

    def merge(self, model: torch.nn.Module) -> torch.nn.Module:
        """Adds the updates to the frozen weights and returns the plain model."""
        return wrapping.merge(model)

    def _targets(self, blueprint: Blueprint) -> list[ParameterInfo]:
        found = wrapping.find_targets(blueprint, self._config.targets)
        narrow = min(found, key=lambda one: min(one.shape))
        if self._config.start != "zero" and self._config.rank > min(narrow.shape):
            raise SpecError(
                f"rank={self._config.rank}: {narrow.name} has {min(narrow.shape)} factors for {self._config.start}",
                field="peft.config.rank",
                accepted=f"1 to {min(narrow.shape)}",
            )
        return found
