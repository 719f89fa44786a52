"""Espalier learners: which signal a model is learned from."""

from __future__ import annotations

from espalier_learners.causal import Causal
from espalier_learners.dpo import Dpo
from espalier_learners.grpo import Grpo
from espalier_learners.kto import Kto
from espalier_learners.masked import Masked
from espalier_learners.reward import Reward
from espalier_learners.rloo import Rloo
from espalier_learners.supervised import Supervised

__all__ = ["Causal", "Dpo", "Grpo", "Kto", "Masked", "Reward", "Rloo", "Supervised"]
