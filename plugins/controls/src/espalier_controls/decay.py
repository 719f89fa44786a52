"""Layer-wise learning rates: a block learns more slowly than the one above it (Sun et al. 2019, Clark et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from espalier_sdk import ParameterInfo, PluginConfig, Rule, ZeroStage
from pydantic import Field


class LayerwiseLrDecayConfig(PluginConfig):
    """How much slower a block learns than the one above it."""

    # 0.95 in Sun et al. 2019; ELECTRA (Clark et al. 2020) takes 0.8 for its base size and 0.9 for the large one.
    decay: float = Field(
        default=0.9, gt=0, le=1, description="Rate of a block over that of the next above; 0.8 to 0.95 is usual."
    )


class LayerwiseLrDecay:
    """Scales the learning rate by decay for each block below the head, which keeps the full rate."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[LayerwiseLrDecayConfig]] = LayerwiseLrDecayConfig
    zero_stages: ClassVar[frozenset[ZeroStage]] = frozenset({0, 1, 2, 3})

    def __init__(self, config: LayerwiseLrDecayConfig) -> None:
        self._config = config

    def boundaries(self, parameters: Sequence[ParameterInfo], *, steps: int) -> Sequence[int]:
        """Returns nothing: the scales stay as they are."""
        return ()

    def rule(self, parameter: ParameterInfo, *, blocks: int, step: int, steps: int) -> Rule:
        """Returns the scale decay ** (blocks + 1 - depth); the embeddings are one below the first block."""
        return Rule(lr_scale=self._config.decay ** max(0, blocks + 1 - parameter.depth))
