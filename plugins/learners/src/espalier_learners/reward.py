"""A reward model: a number that says how good an answer is, learned from pairs of answers, or from rated ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from espalier_sdk import Budget, Columns, Head, HeadKind, Parts, PluginConfig
from pydantic import Field, model_validator

from espalier_learners.pairs import PadPairs, answer_column, encode_pairs, pair_columns
from espalier_learners.prepared import on_prepared_rows
from espalier_learners.ratings import encode_rated

if TYPE_CHECKING:
    import pyarrow as pa
    from espalier_sdk.protocols import Task
    from transformers import PreTrainedTokenizerBase as Tokenizer
    from transformers import Trainer, TrainingArguments


class RewardConfig(PluginConfig):
    """Where the other answer or the rating stands, and how near to zero rewards are kept."""

    rejected: str = Field(
        default="rejected", description="The column of the answers that were liked less; the task's own are the better."
    )
    rating: str | None = Field(
        default=None,
        description="The column of a number per answer, in place of `rejected`; answers to one question are paired.",
    )
    centre: float = Field(
        default=0.01,
        ge=0,
        description="How strongly the two rewards of a pair are held to a sum of zero (Eisenstein et al. 2023).",
    )

    @model_validator(mode="after")
    def _one_signal(self) -> Self:
        if self.rating is not None and "rejected" in self.model_fields_set:
            raise ValueError("name `rejected`, the column of other answers, or `rating`, that of numbers")
        return self


class Reward:
    """Gives the better of two answers a higher number than the other, by the model of Bradley and Terry (1952).

    Trains with TRL's RewardTrainer: the loss is -log sigmoid of the difference (Ouyang et al. 2022). The number is read
    at the last token of question and answer.
    """

    contract: ClassVar[int] = 1
    Config: ClassVar[type[RewardConfig]] = RewardConfig
    heads: ClassVar[frozenset[HeadKind]] = frozenset({"causal-lm"})
    head: ClassVar[Head] = Head("sequence-classification", outputs=1, problem="regression")
    auxiliaries: ClassVar[Mapping[str, HeadKind]] = {}
    needs_reference: ClassVar[bool] = False
    sequences: ClassVar[int] = 2

    def __init__(self, config: RewardConfig) -> None:
        self._config = config
        self.whole_split = config.rating is not None

    def columns(self, task: Task) -> Columns:
        """Returns the task's columns and that of the other answer or the rating; SpecError where it has no answers."""
        if self._config.rating is not None:
            answer_column(task)
            known = task.columns()
            return Columns(required={**known.required, self._config.rating: "value"}, optional=known.optional)
        return pair_columns(task, self._config.rejected)

    def encode(self, rows: pa.Table, *, task: Any, state: Any, tokenizer: Tokenizer, budget: Budget) -> pa.Table:
        """Returns one row per pair; DataError where its sides are the same, or one or its rating is missing."""
        told: dict[str, Any] = {"task": task, "state": state, "tokenizer": tokenizer, "budget": budget}
        if self._config.rating is not None:
            return encode_rated(rows, rating=self._config.rating, **told)
        return encode_pairs(rows, rejected=self._config.rejected, **told)

    def trainer(self) -> type[Trainer]:
        """Returns TRL's RewardTrainer on rows that are encoded already."""
        from trl import RewardTrainer

        found: type[Trainer] = on_prepared_rows(RewardTrainer)
        return found

    def arguments(self, common: Mapping[str, Any]) -> TrainingArguments:
        """Returns the common arguments with the loss; `encode` has cut what is too long."""
        from trl import RewardConfig as Arguments

        found: TrainingArguments = Arguments(
            **common, center_rewards_coefficient=self._config.centre or None, max_length=None
        )
        return found

    def inputs(self, parts: Parts) -> Mapping[str, Any]:
        """Returns the collator of pairs; where a row ends, its reward is read."""
        return {"data_collator": PadPairs(parts.tokenizer, names=("input_ids", "attention_mask"))}
