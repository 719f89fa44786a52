"""Direct preference optimisation: a model learns from pairs of answers, without a reward model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from espalier_sdk import Budget, Columns, HeadKind, Parts, PluginConfig
from pydantic import Field

from espalier_learners.pairs import PadPairs, encode_pairs, pair_columns
from espalier_learners.pieces import loss_bytes
from espalier_learners.prepared import on_prepared_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from espalier_sdk.protocols import Task
    from transformers import PreTrainedTokenizerBase as Tokenizer
    from transformers import Trainer, TrainingArguments


class DpoConfig(PluginConfig):
    """Where the other answer stands, and how far the model may go from the reference."""

    rejected: str = Field(
        default="rejected", description="The column of the answers that were liked less; the task's own are the better."
    )
    beta: float = Field(default=0.1, gt=0, description="How strongly the model is held to the reference; 0.1 is usual.")
    loss: Literal["sigmoid", "hinge", "ipo"] = Field(
        default="sigmoid",
        description="sigmoid: DPO (Rafailov et al. 2023); hinge: SLiC (Zhao et al. 2023); ipo (Azar et al. 2023).",
    )


class Dpo:
    """Makes the better of two answers likelier than the other, measured against a frozen reference.

    Trains with TRL's DPOTrainer (Rafailov et al. 2023). The reference is the base: a copy, or the model with its
    adapter off where the PEFT method allows it.
    """

    contract: ClassVar[int] = 1
    Config: ClassVar[type[DpoConfig]] = DpoConfig
    heads: ClassVar[frozenset[HeadKind]] = frozenset({"causal-lm"})
    auxiliaries: ClassVar[Mapping[str, HeadKind]] = {}
    needs_reference: ClassVar[bool] = True
    sequences: ClassVar[int] = 2
    loss_bytes = staticmethod(loss_bytes)

    def __init__(self, config: DpoConfig) -> None:
        self._config = config

    def columns(self, task: Task) -> Columns:
        """Returns the task's columns and that of the other answer; SpecError where the task has no answers."""
        return pair_columns(task, self._config.rejected)

    def encode(self, rows: pa.Table, *, task: Task, state: Any, tokenizer: Tokenizer, budget: Budget) -> pa.Table:
        """Returns one row per pair; DataError where its sides are the same or one is missing."""
        told: dict[str, Any] = {"task": task, "state": state, "tokenizer": tokenizer, "budget": budget}
        return encode_pairs(rows, rejected=self._config.rejected, **told)

    def trainer(self) -> type[Trainer]:
        """Returns TRL's DPOTrainer on rows that are encoded already."""
        from trl import DPOTrainer

        found: type[Trainer] = on_prepared_rows(DPOTrainer)
        return found

    def arguments(self, common: Mapping[str, Any]) -> TrainingArguments:
        """Returns the common arguments with the loss; dropout is off, so that model and reference differ by learning.

        `encode` has cut what is too long.
        """
        from trl import DPOConfig

        config = self._config
        found: TrainingArguments = DPOConfig(
            **common, beta=config.beta, loss_type=[config.loss], max_length=None, disable_dropout=True
        )
        return found

    def inputs(self, parts: Parts) -> Mapping[str, Any]:
        """Returns the collator of pairs, and the reference."""
        return {"data_collator": PadPairs(parts.tokenizer), "ref_model": parts.reference}
