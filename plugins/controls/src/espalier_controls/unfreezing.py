"""Gradual unfreezing: the head learns first, then the blocks thaw from the last to the first (Howard and Ruder 2018).

Each new group of blocks is a new phase, because engines fix what they train when they start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from espalier_sdk import ParameterInfo, PluginConfig, Rule, ZeroStage
from pydantic import Field


class GradualUnfreezingConfig(PluginConfig):
    """How fast the model thaws, and how far."""

    share: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Share of the steps before the next group thaws; what has not thawed at the end stays as it was.",
    )
    blocks_per_stage: int = Field(default=1, ge=1, description="Blocks that thaw together.")
    head_alone: bool = Field(
        default=True,
        description="Whether the first stage trains the head alone; false where no head is trained, as with adapters "
        "in a language model.",
    )
    embeddings: bool = Field(default=True, description="Whether the embeddings thaw, after the first block.")


class GradualUnfreezing:
    """Trains the head first, then the blocks too, group by group from the last (ULMFiT)."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[GradualUnfreezingConfig]] = GradualUnfreezingConfig
    zero_stages: ClassVar[frozenset[ZeroStage]] = frozenset({0, 1, 2, 3})

    def __init__(self, config: GradualUnfreezingConfig) -> None:
        self._config = config

    def boundaries(self, parameters: Sequence[ParameterInfo], *, steps: int) -> Sequence[int]:
        """Returns the steps at which a group thaws; a cut after which nothing new thaws does no harm to a plan."""
        groups = max((parameter.depth for parameter in parameters), default=0) + 1
        return sorted({cut for group in range(groups + 1) if 0 < (cut := self._thaw(group, steps)) < steps})

    def rule(self, parameter: ParameterInfo, *, blocks: int, step: int, steps: int) -> Rule:
        """Returns whether the parameter's group has thawed; adapters thaw with the block that they stand in."""
        if parameter.depth == 0 and not self._config.embeddings:
            return Rule(trainable=False)
        return Rule(trainable=step >= self._thaw(self._group(parameter.depth, blocks), steps))

    def _group(self, depth: int, blocks: int) -> int:
        """Returns 0 for the head, then 1, 2, ... from the last blocks to the first, and the embeddings at the end."""
        if depth == 0:
            return math.ceil(blocks / self._config.blocks_per_stage) + 1
        return math.ceil(max(0, blocks + 1 - depth) / self._config.blocks_per_stage)

    def _thaw(self, group: int, steps: int) -> int:
        wait = group if self._config.head_alone else max(0, group - 1)
        return round(wait * self._config.share * steps)
