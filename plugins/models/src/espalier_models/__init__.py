"""Espalier model strategies: from scratch, full fine-tuning, parameter-efficient fine-tuning."""

from __future__ import annotations

from espalier_models.finetune import FullFinetune, Peft
from espalier_models.scratch import FromScratch

__all__ = ["FromScratch", "FullFinetune", "Peft"]
