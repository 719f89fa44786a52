"""Espalier PEFT methods: bottleneck adapters, (IA)3, BitFit, tuned norms."""

from __future__ import annotations

from espalier_peft_adapters.bitfit import BitFit
from espalier_peft_adapters.bottleneck import BottleneckAdapters
from espalier_peft_adapters.ia3 import Ia3
from espalier_peft_adapters.ln_tuning import LnTuning

__all__ = ["BitFit", "BottleneckAdapters", "Ia3", "LnTuning"]
