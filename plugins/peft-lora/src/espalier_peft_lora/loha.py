"""LoHa: the update is the product, entry by entry, of two low-rank matrices (Hyeon-Woo et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, get_args

from espalier_sdk import Blueprint, HeadKind, ParameterInfo, PeftTraits, Placement, PluginConfig
from pydantic import Field

from espalier_peft_lora import wrapping

if TYPE_CHECKING:
    import torch


class LoHaConfig(PluginConfig):
    """Rank, scale and place of the updates."""

    rank: int = Field(default=8, ge=1, le=1024, description="Rank of each of the two factors.")
    alpha: float = Field(default=8, gt=0, description="Scale of the update before rank.")
    targets: wrapping.Targets = Field(default="attention", description=wrapping.TARGETS)


class LoHa:
    """Trains updates (B1 A1) * (B2 A2), whose rank goes up to rank squared; the output is unchanged at step 0."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[LoHaConfig]] = LoHaConfig

    def __init__(self, config: LoHaConfig) -> None:
        self._config = config

    def traits(self) -> PeftTraits:
        """Returns what LoHa can do; not ZeRO-3: its weights lie in dicts, where gathering may miss them."""
        return PeftTraits(
            zero_stages=frozenset({0, 1, 2}),
            heads=frozenset(get_args(HeadKind)),
            identity_at_start=True,
            mergeable=True,
            mixes_in_batch=False,
            opens_with_peft=True,
        )

    def parameters(self, blueprint: Blueprint) -> tuple[ParameterInfo, ...]:
        """Returns two pairs (out, rank) and (rank, in) for each target."""
        rank = self._config.rank
        found: list[ParameterInfo] = []
        for target in wrapping.find_untransposed(blueprint, self._config.targets):
            out, width = target.shape
            for factor in ("hada_w1", "hada_w2"):
                found.append(wrapping.added(target, f"{factor}_a", out, rank))
                found.append(wrapping.added(target, f"{factor}_b", rank, width))
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
        """Wraps the model with PEFT's LoHa; modules that the base lacks are trained and saved whole."""
        import peft

        config = peft.LoHaConfig(
            r=self._config.rank,
            alpha=self._config.alpha,  # type: ignore[arg-type]
            **wrapping.options(blueprint, wrapping.find_untransposed(blueprint, self._config.targets)),
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
        """Writes a folder that PEFT itself opens."""
        wrapping.save(model, folder)

    def load(self, model: torch.nn.Module, folder: Path) -> torch.nn.Module:
        """Opens a saved adapter on its base; DataError where the folder holds none in safetensors."""
        return wrapping.load(model, folder, kind="LOHA")

    def merge(self, model: torch.nn.Module) -> torch.nn.Module:
        """Adds the updates to the frozen weights and returns the plain model."""
        return wrapping.merge(model)
