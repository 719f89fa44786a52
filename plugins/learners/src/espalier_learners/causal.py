"""Pre-training: the next token of a text, with short texts packed into one row and kept apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from espalier_sdk import Budget, Columns, DataError, HeadKind, Parts, PluginConfig
from espalier_sdk.columns import LABELS

from espalier_learners.packing import PadPacks, pack
from espalier_learners.sparing import sparing

if TYPE_CHECKING:
    import pyarrow as pa
    from espalier_sdk.protocols import Task
    from transformers import PreTrainedTokenizerBase as Tokenizer
    from transformers import Trainer, TrainingArguments


class CausalConfig(PluginConfig):
    """Next-token prediction has no options of its own."""


class Causal:
    """Learns to predict the next token (Radford et al. 2018), as `supervised` does, in packed rows."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[CausalConfig]] = CausalConfig
    heads: ClassVar[frozenset[HeadKind]] = frozenset({"causal-lm"})
    auxiliaries: ClassVar[Mapping[str, HeadKind]] = {}
    needs_reference: ClassVar[bool] = False
    packs: ClassVar[bool] = True

    def __init__(self, config: CausalConfig) -> None:
        self._config = config

    def columns(self, task: Task) -> Columns:
        """Returns the task's columns: its labels are the signal."""
        return task.columns()

    def encode(self, rows: pa.Table, *, task: Task, state: Any, tokenizer: Tokenizer, budget: Budget) -> pa.Table:
        """Returns what the task encodes, packed into rows of at most the budget."""
        encoded = task.encode(rows, state=state, tokenizer=tokenizer, budget=budget)
        if LABELS not in encoded.column_names:
            raise DataError("the rows hold no text or answer to learn from", field=LABELS)
        return pack(encoded, max_tokens=budget.max_tokens)

    def trainer(self) -> type[Trainer]:
        """Returns transformers' Trainer, sparing with logits."""
        from transformers import Trainer

        return sparing(Trainer)

    def arguments(self, common: Mapping[str, Any]) -> TrainingArguments:
        """Returns the common arguments as they are."""
        from transformers import TrainingArguments

        return TrainingArguments(**common)

    def inputs(self, parts: Parts) -> Mapping[str, Any]:
        """Returns a collator that keeps packed examples apart."""
        return {"data_collator": PadPacks(parts.tokenizer)}
