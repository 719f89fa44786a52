"""L2-SP: weights are drawn back to where they started, instead of to zero (Li et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from espalier_sdk import ParameterInfo, PluginConfig, Rule, ZeroStage
from pydantic import Field, model_validator


class L2SpConfig(PluginConfig):
    """How strongly, and which weights."""

    strength: float = Field(
        default=0.01, gt=0, allow_inf_nan=False, description="Factor of the squared distance from the start weights."
    )
    roles: tuple[Literal["embedding", "block", "norm"], ...] = Field(
        default=("embedding", "block", "norm"),
        min_length=1,
        description="Roles that are drawn back; what is new (head, adapter, side) has no start worth keeping.",
    )
    lowest_depth: int = Field(default=0, ge=0, description="First depth that is drawn back; 0 is the embeddings.")
    highest_depth: int | None = Field(default=None, ge=0, description="Last depth that is drawn back; default: all.")

    @model_validator(mode="after")
    def _check_depths(self) -> L2SpConfig:
        if self.highest_depth is not None and self.highest_depth < self.lowest_depth:
            raise ValueError(
                f"highest_depth={self.highest_depth} is below lowest_depth={self.lowest_depth}: nothing would be kept"
            )
        return self


class L2Sp:
    """Anchors pre-trained weights to their start values; never what is new."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[L2SpConfig]] = L2SpConfig
    # The start weights are a full copy per worker, which is what stage 3 is there to avoid.
    zero_stages: ClassVar[frozenset[ZeroStage]] = frozenset({0, 1, 2})

    def __init__(self, config: L2SpConfig) -> None:
        self._config = config

    def boundaries(self, parameters: Sequence[ParameterInfo], *, steps: int) -> Sequence[int]:
        """Returns nothing: the anchors stay as they are."""
        return ()

    def rule(self, parameter: ParameterInfo, *, blocks: int, step: int, steps: int) -> Rule:
        """Returns the strength for the chosen roles and depths, and none elsewhere."""
        return Rule(anchor=self._config.strength if self._holds(parameter) else 0.0)

    def _holds(self, parameter: ParameterInfo) -> bool:
        config = self._config
        highest = parameter.depth if config.highest_depth is None else config.highest_depth
        return parameter.role in config.roles and config.lowest_depth <= parameter.depth <= highest
