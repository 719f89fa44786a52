"""VeRA: all layers share two random frozen matrices, and each trains two vectors beside them (Kopiczko et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, get_args

from espalier_sdk import Blueprint, HeadKind, ParameterInfo, PeftTraits, Placement, PluginConfig
from pydantic import Field

from espalier_peft_lora import wrapping

if TYPE_CHECKING:
    import torch


class VeraConfig(PluginConfig):
    """Rank, place and seed of the shared matrices."""

    rank: int = Field(
        default=256, ge=1, le=4096, description="Rank of the shared matrices; costs one weight per layer."
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout in front of each update, in training.")
    scale: float = Field(default=0.1, gt=0, description="Start value of the vector d.")
    seed: int = Field(default=0, ge=0, description="Seed of the shared matrices.")
    targets: wrapping.Targets = Field(default="attention", description=wrapping.TARGETS)


class Vera:
    """Trains updates diag(b) B diag(d) A with shared frozen A and B; the output is unchanged at step 0."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[VeraConfig]] = VeraConfig

    def __init__(self, config: VeraConfig) -> None:
        self._config = config

    def traits(self) -> PeftTraits:
        """Returns what VeRA can do; not ZeRO-3: its weights lie in dicts, where gathering may miss them."""
        return PeftTraits(
            zero_stages=frozenset({0, 1, 2}),
            heads=frozenset(get_args(HeadKind)),
            identity_at_start=True,
            mergeable=True,
            mixes_in_batch=False,
            opens_with_peft=True,
            quantised=True,
            learning_rate=1e-2,
        )

    def parameters(self, blueprint: Blueprint) -> tuple[ParameterInfo, ...]:
        """Returns b (out) and d (rank) for each target; the shared matrices are buffers."""
        found: list[ParameterInfo] = []
        for target in wrapping.find_targets(blueprint, self._config.targets):
            found.append(wrapping.added(target, "vera_lambda_b", wrapping.sides(target)[0]))
            found.append(wrapping.added(target, "vera_lambda_d", self._config.rank))
        return tuple(found)

    def place(self, placement: Placement) -> Placement:
        """Returns the placement as it is."""
        return placement

    def inject(
        self,
        model: torch.nn.Module,
        *,
        blueprint: Blueprint,
        placement: Placement,
        calibration: Iterable[Mapping[str, torch.Tensor]],
    ) -> torch.nn.Module:
        """Wraps the model with PEFT's VeRA; modules that the base lacks are trained and saved whole."""
        import peft

        targets = wrapping.find_targets(blueprint, self._config.targets)
        config = peft.VeraConfig(
            r=self._config.rank,
            vera_dropout=self._config.dropout,
            d_initial=self._config.scale,
            projection_prng_key=self._config.seed,
            save_projection=True,
            fan_in_fan_out=wrapping.are_transposed(targets),
            **wrapping.options(blueprint, targets),
        )
        return wrapping.wrap(model, config, placement)

    def after_step(self, model: torch.nn.Module, *, step: int, steps: int) -> None:
        """Does nothing: ranks are fixed."""

    def extra_state(self, model: torch.nn.Module) -> Mapping[str, torch.Tensor]:
        """Returns nothing: `state_dict` has all."""
        return {}

    def restore(self, model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Does nothing: there is no extra state."""

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        """Writes a folder that PEFT itself opens, with the shared matrices: a seed binds them to a version of torch."""
        wrapping.save(model, folder)

    def load(self, model: torch.nn.Module, folder: Path) -> torch.nn.Module:
        """Opens a saved adapter on its base; DataError where the folder holds none in safetensors."""
        return wrapping.load(model, folder, kind="VERA")

    def merge(self, model: torch.nn.Module) -> torch.nn.Module:
        """Adds the updates to the frozen weights and returns the plain model."""
        return wrapping.merge(model)
