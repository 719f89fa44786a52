"""Espalier PEFT methods: prompt tuning, p-tuning, prefix tuning."""

from __future__ import annotations

from espalier_peft_prompt.p_tuning import PTuning
from espalier_peft_prompt.prefix_tuning import PrefixTuning
from espalier_peft_prompt.prompt_tuning import PromptTuning

__all__ = ["PTuning", "PrefixTuning", "PromptTuning"]
