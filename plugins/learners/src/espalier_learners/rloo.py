"""REINFORCE leave-one-out: each answer's reward is measured by the mean of its siblings'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from espalier_sdk import PluginConfig
from pydantic import Field

from espalier_learners.questions import Policy, on_questions

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments


class RlooConfig(PluginConfig):
    """How many answers are compared, how they are drawn, and what going away from the reference costs."""

    answers: int = Field(default=4, ge=2, le=256, description="Answers drawn to each question and compared.")
    temperature: float = Field(default=1.0, gt=0, le=10, description="Of drawing: higher tries more.")
    beta: float = Field(
        default=0.05, gt=0, description="What an answer's log-ratio to the reference takes from its reward."
    )


class Rloo(Policy):
    """Draws several answers to each question and learns from how each is rewarded against the mean of the others.

    Trains with TRL's RLOOTrainer (Ahmadian et al. 2024). The reward is another candidate's model.
    """

    Config: ClassVar[type[RlooConfig]] = RlooConfig

    def __init__(self, config: RlooConfig) -> None:
        self._config = config
        self.sequences = config.answers

    def trainer(self) -> type[Trainer]:
        """Returns TRL's RLOOTrainer on questions that are encoded already."""
        from trl import RLOOTrainer

        found: type[Trainer] = on_questions(RLOOTrainer)
        return found

    def arguments(self, common: Mapping[str, Any]) -> TrainingArguments:
        """Returns the common arguments with drawing; dropout is off, so that what is drawn is what learns."""
        from trl import RLOOConfig

        config = self._config
        found: TrainingArguments = RLOOConfig(
            **common,
            num_generations=config.answers,
            steps_per_generation=config.answers,  # TRL counts answers in a batch, which holds questions here
            temperature=config.temperature,
            beta=config.beta,
            disable_dropout=True,
        )
        return found
