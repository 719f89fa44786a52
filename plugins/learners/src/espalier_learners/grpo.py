"""Group relative policy optimisation: answers that a reward model likes better than their siblings become likelier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from espalier_sdk import PluginConfig
from pydantic import Field

from espalier_learners.questions import Policy, on_questions

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments


class GrpoConfig(PluginConfig):
    """How many answers are compared, how they are drawn, and how far the model may go from the reference."""

    answers: int = Field(default=8, ge=2, le=256, description="Answers drawn to each question and compared.")
    temperature: float = Field(default=1.0, gt=0, le=10, description="Of drawing: higher tries more.")
    beta: float = Field(
        default=0.04, gt=0, description="How strongly the model is held to the reference; DeepSeekMath has 0.04."
    )
    loss: Literal["grpo", "dr_grpo"] = Field(
        default="grpo",
        description="grpo (Shao et al. 2024); dr_grpo: not scaled by length and spread (Liu et al. 2025).",
    )


class Grpo(Policy):
    """Draws several answers to each question and learns from how each is rewarded beside the others.

    Trains with TRL's GRPOTrainer (Shao et al. 2024). The reward is another candidate's model.
    """

    Config: ClassVar[type[GrpoConfig]] = GrpoConfig

    def __init__(self, config: GrpoConfig) -> None:
        self._config = config
        self.sequences = config.answers

    def trainer(self) -> type[Trainer]:
        """Returns TRL's GRPOTrainer on questions that are encoded already."""
        from trl import GRPOTrainer

        found: type[Trainer] = on_questions(GRPOTrainer)
        return found

    def arguments(self, common: Mapping[str, Any]) -> TrainingArguments:
        """Returns the common arguments with drawing and loss; dropout is off, so that what is drawn is what learns."""
        from trl import GRPOConfig

        config = self._config
        found: TrainingArguments = GRPOConfig(
            **common,
            num_generations=config.answers,
            steps_per_generation=config.answers,  # TRL counts answers in a batch, which holds questions here
            temperature=config.temperature,
            beta=config.beta,
            loss_type=config.loss,
            scale_rewards="group" if config.loss == "grpo" else "none",
            disable_dropout=True,
        )
        return found
