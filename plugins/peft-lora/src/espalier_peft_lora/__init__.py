"""Espalier PEFT methods: low-rank and related updates of frozen weights."""

from __future__ import annotations

from espalier_peft_lora.adalora import AdaLora
from espalier_peft_lora.loha import LoHa
from espalier_peft_lora.lokr import LoKr
from espalier_peft_lora.lora import Lora
from espalier_peft_lora.vera import Vera

__all__ = ["AdaLora", "LoHa", "LoKr", "Lora", "Vera"]
