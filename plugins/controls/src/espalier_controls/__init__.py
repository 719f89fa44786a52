"""Espalier training controls: gradual unfreezing, layer-wise learning rates, a rate for the head, L2-SP."""

from __future__ import annotations

from espalier_controls.decay import LayerwiseLrDecay
from espalier_controls.head_rate import HeadRate
from espalier_controls.l2_sp import L2Sp
from espalier_controls.unfreezing import GradualUnfreezing

__all__ = ["GradualUnfreezing", "HeadRate", "L2Sp", "LayerwiseLrDecay"]
