"""Supervised learning: the task's own labels, with transformers' Trainer and its loss for each head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from espalier_sdk import Budget, Columns, HeadKind, Parts, PluginConfig, SpecError
from pydantic import Field

from espalier_learners.padding import PadToLongest
from espalier_learners.sparing import sparing
from espalier_learners.weighting import FIELD, balanced

if TYPE_CHECKING:
    import pyarrow as pa
    from espalier_sdk.protocols import Task
    from transformers import PreTrainedTokenizerBase as Tokenizer
    from transformers import Trainer, TrainingArguments


_LABELLED = frozenset({"sequence-classification", "token-classification"})


class SupervisedConfig(PluginConfig):
    """How much each label counts."""

    class_weights: Literal["balanced"] | None = Field(
        default=None, description="balanced: rare labels count more, so that each label counts the same in all."
    )


class Supervised:
    """Learns from the labels that the task encodes."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[SupervisedConfig]] = SupervisedConfig
    heads: ClassVar[frozenset[HeadKind]] = frozenset(
        {"causal-lm", "masked-lm", "sequence-classification", "token-classification", "question-answering"}
    )
    auxiliaries: ClassVar[Mapping[str, HeadKind]] = {}
    needs_reference: ClassVar[bool] = False

    def __init__(self, config: SupervisedConfig) -> None:
        self._config = config

    def columns(self, task: Task) -> Columns:
        """Returns the task's columns: its labels are the signal; SpecError where it has none that could be weighed."""
        known = task.columns()
        if self._config.class_weights and task.head_kind not in _LABELLED:
            raise SpecError("weighs labels, and this task has none", field=FIELD, remedy="leave class_weights out")
        if self._config.class_weights and "value" in known.required.values():
            raise SpecError("weighs labels, and this task has numbers", field=FIELD, remedy="leave class_weights out")
        return known

    def encode(self, rows: pa.Table, *, task: Task, state: Any, tokenizer: Tokenizer, budget: Budget) -> pa.Table:
        """Returns what the task encodes."""
        return task.encode(rows, state=state, tokenizer=tokenizer, budget=budget)

    def trainer(self) -> type[Trainer]:
        """Returns transformers' Trainer, sparing with logits, or one that weighs labels."""
        from transformers import Trainer

        return balanced(Trainer) if self._config.class_weights else sparing(Trainer)

    def arguments(self, common: Mapping[str, Any]) -> TrainingArguments:
        """Returns the common arguments as they are."""
        from transformers import TrainingArguments

        return TrainingArguments(**common)

    def inputs(self, parts: Parts) -> Mapping[str, Any]:
        """Returns a collator that pads each batch to its longest example."""
        return {"data_collator": PadToLongest(parts.tokenizer, most=parts.max_tokens)}
