"""LoRA: a frozen weight W gets a trained low-rank update, W + (alpha / rank) B A (Hu et al. 2022), and its variants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from espalier_sdk import Blueprint, HeadKind, ParameterInfo, PeftTraits, Placement, PluginConfig, SpecError, ZeroStage
from pydantic import Field, model_validator

from espalier_peft_lora import placing, starts, wrapping

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
    placement: Literal["uniform", "relevance"] = Field(
        default="uniform",
        description="relevance: ranks by what the loss is sensitive to, with no more weights in all than equal ranks.",
    )
    calibration_batches: int = Field(
        default=8, ge=1, le=1000, description="placement: relevance: how many batches of the train split it reads."
    )

    @model_validator(mode="after")
    def _check_placement(self) -> LoraConfig:
        if self.placement == "relevance" and self.dora:
            raise ValueError("placement: relevance places ranks, and dora trains lengths beside them: use one of them")
        if self.placement == "uniform" and "calibration_batches" in self.model_fields_set:
            raise ValueError("calibration_batches is for placement: relevance: say so, or remove it")
        return self


class Lora:
    """Trains low-rank updates beside linear layers of the blocks."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[LoraConfig]] = LoraConfig

    def __init__(self, config: LoraConfig) -> None:
        self._config = config

    def traits(self) -> PeftTraits:
        """Returns what this variant can do.

        DoRA, the starts from the base and placed ranks read whole base weights, which ZeRO-3 does not hold; the first
        two PEFT cannot mix in a batch. Starts and placed ranks need weights that can be written to or have gradients,
        as those in four bits cannot. After a start from the base the output is the base's up to rounding only, and the
        base with the update off is not what it was: a reference is a copy.
        """
        plain = self._config.start == "zero"
        reads_base = self._config.dora or not plain
        placed = self._config.placement == "relevance"
        stages: frozenset[ZeroStage] = frozenset({0, 1, 2} if reads_base or placed else {0, 1, 2, 3})
        return PeftTraits(
            zero_stages=stages,
            heads=frozenset(get_args(HeadKind)),
            identity_at_start=plain,
            mergeable=True,
            mixes_in_batch=not reads_base,
            calibration_batches=self._config.calibration_batches if placed else 0,
            reference="disable" if plain else "copy",
            quantised=plain and not placed,
            opens_with_peft=self._config.start != "olora",  # PEFT makes this start again, and fails on GPT-2's layers
        )

    def parameters(self, blueprint: Blueprint) -> tuple[ParameterInfo, ...]:
        """Returns A (rank, in) and B (out, rank) for each target, and with DoRA its lengths (out).

        With placed ranks these are the budget: the ranks are known when the model is.
        """
        return self._updates(blueprint, {target.name: self._config.rank for target in self._targets(blueprint)})

    def placed(self, model: torch.nn.Module, *, blueprint: Blueprint) -> tuple[ParameterInfo, ...]:
        """Returns the same with the ranks that an injected model has."""
        return self._updates(blueprint, placing.ranks_in(model))

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
        """Wraps the model with PEFT's LoRA; modules that the base lacks are trained and saved whole.

        The scale of an update is the same at each rank, alpha / rank, also where ranks are placed.
        """
        import peft

        rank, alpha = self._config.rank, self._config.alpha or 2 * self._config.rank
        targets = self._targets(blueprint)
        options: dict[str, Any] = {}
        if self._config.placement == "relevance":
            ranks = placing.place(model, targets, rank=rank, calibration=calibration)
            targets = [target for target in targets if ranks[target.name]]
            own = {target.name.removesuffix(".weight"): ranks[target.name] for target in targets}
            options["rank_pattern"] = own
            if not self._config.rank_stabilised:  # which divides by the root of each rank itself
                options["alpha_pattern"] = {name: alpha * one / rank for name, one in own.items()}
        config = peft.LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]
            lora_dropout=self._config.dropout,
            use_rslora=self._config.rank_stabilised,
            use_dora=self._config.dora,
            fan_in_fan_out=wrapping.are_transposed(targets),
            bias="none",
            **options,
            **wrapping.options(blueprint, targets),
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

    def _updates(self, blueprint: Blueprint, ranks: Mapping[str, int]) -> tuple[ParameterInfo, ...]:
        found: list[ParameterInfo] = []
        for target in self._targets(blueprint):
            rank = ranks.get(target.name, 0)
            if not rank:
                continue
            out, width = wrapping.sides(target)
            found.append(wrapping.added(target, "lora_A.weight", rank, width))
            found.append(wrapping.added(target, "lora_B.weight", out, rank))
            if self._config.dora:
                found.append(wrapping.added(target, "lora_magnitude_vector.weight", out))
        return tuple(found)

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
