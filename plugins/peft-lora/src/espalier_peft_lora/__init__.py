"""Espalier PEFT method: low-rank adaptation (LoRA)."""

from __future__ import annotations

from espalier_peft_lora.lora import Lora

__all__ = ["Lora"]
