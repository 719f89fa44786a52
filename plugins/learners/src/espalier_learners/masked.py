"""Pre-training of encoders: tokens that are left out of a text, others in every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from espalier_sdk import Budget, Columns, DataError, HeadKind, Parts, PluginConfig
from espalier_sdk.columns import ENCODED_ROW, LABELS, WORDS
from pydantic import Field

from espalier_learners.masking import WORD, MaskTokens, masking_trainer
from espalier_learners.padding import IGNORED_LABEL
from espalier_learners.sparing import sparing

if TYPE_CHECKING:
    import pyarrow as pa
    from espalier_sdk.protocols import Task
    from transformers import PreTrainedTokenizerBase as Tokenizer
    from transformers import Trainer, TrainingArguments


class MaskedConfig(PluginConfig):
    """How much of each text is asked for, and whether words stay whole."""

    share: float = Field(
        default=0.15, gt=0, lt=1, description="Share of a text's tokens that are asked for; one token at least."
    )
    whole_words: bool = Field(default=False, description="Asks for all pieces of a word, or for none of them.")


class Masked:
    """Learns to guess tokens from those around them (Devlin et al. 2019).

    Of the tokens asked for, 80 % are masked, 10 % are another token, and 10 % stay: which ones is drawn anew in every
    epoch (Liu et al. 2019), by a hash of text, seed and epoch, so that a run that goes on draws what it would have.
    """

    contract: ClassVar[int] = 1
    Config: ClassVar[type[MaskedConfig]] = MaskedConfig
    heads: ClassVar[frozenset[HeadKind]] = frozenset({"masked-lm"})
    auxiliaries: ClassVar[Mapping[str, HeadKind]] = {}
    needs_reference: ClassVar[bool] = False

    def __init__(self, config: MaskedConfig) -> None:
        self._config = config

    def columns(self, task: Task) -> Columns:
        """Returns the task's columns: its texts are the signal."""
        return task.columns()

    def encode(self, rows: pa.Table, *, task: Task, state: Any, tokenizer: Tokenizer, budget: Budget) -> pa.Table:
        """Returns what the task encodes with its own masks taken back; rows without a token to ask for are left out."""
        import pyarrow as pa

        encoded = task.encode(rows, state=state, tokenizer=tokenizer, budget=budget)
        if LABELS not in encoded.column_names:
            raise DataError("the rows hold no text to learn from", field=LABELS)
        pairs = zip(encoded.column("input_ids").to_pylist(), encoded.column(LABELS).to_pylist(), strict=True)
        ids = [
            [one if label == IGNORED_LABEL else label for one, label in zip(masked, labels, strict=True)]
            for masked, labels in pairs
        ]
        found = encoded.select([ENCODED_ROW, "attention_mask"])
        found = found.append_column("input_ids", pa.array(ids, pa.list_(pa.int32())))
        if self._config.whole_words:
            found = found.append_column(WORD, _words(encoded))
        special = set(tokenizer.all_special_ids)
        return found.filter(pa.array([not special.issuperset(one) for one in ids], pa.bool_()))

    def trainer(self) -> type[Trainer]:
        """Returns transformers' Trainer, sparing with logits, which tells the collator its epoch."""
        return sparing(masking_trainer())

    def arguments(self, common: Mapping[str, Any]) -> TrainingArguments:
        """Returns the common arguments as they are."""
        from transformers import TrainingArguments

        return TrainingArguments(**common)

    def inputs(self, parts: Parts) -> Mapping[str, Any]:
        """Returns the collator that masks; DataError where the tokenizer has no mask."""
        return {"data_collator": MaskTokens(parts.tokenizer, share=self._config.share, most=parts.max_tokens)}


def _words(encoded: pa.Table) -> pa.ChunkedArray:
    if WORDS not in encoded.column_names:
        raise DataError(
            "the task does not say which tokens are pieces of one word",
            field="learner.config.whole_words",
            remedy="remove whole_words",
        )
    return encoded.column(WORDS)
