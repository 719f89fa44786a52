"""A new head learns faster than what was pre-trained below it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from espalier_sdk import ParameterInfo, PluginConfig, Rule, ZeroStage
from pydantic import Field


class HeadRateConfig(PluginConfig):
    """How much faster the head learns."""

    scale: float = Field(
        default=10.0, gt=0, allow_inf_nan=False, description="Rate of the head over that of everything else."
    )


class HeadRate:
    """Scales the learning rate of the head: its weights start at random, the others where pre-training left them."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[HeadRateConfig]] = HeadRateConfig
    zero_stages: ClassVar[frozenset[ZeroStage]] = frozenset({0, 1, 2, 3})

    def __init__(self, config: HeadRateConfig) -> None:
        self._config = config

    def boundaries(self, parameters: Sequence[ParameterInfo], *, steps: int) -> Sequence[int]:
        """Returns nothing: the scale stays as it is."""
        return ()

    def rule(self, parameter: ParameterInfo, *, blocks: int, step: int, steps: int) -> Rule:
        """Returns the scale for the head, and 1 elsewhere."""
        return Rule(lr_scale=self._config.scale if parameter.role == "head" else 1.0)
