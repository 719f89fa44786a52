"""Learning from thumbs: single answers, each liked or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from espalier_sdk import Budget, Columns, DataError, HeadKind, Parts, PluginConfig, SpecError
from espalier_sdk.columns import ENCODED_ROW, LABELS
from pydantic import Field

from espalier_learners.padding import IGNORED_LABEL
from espalier_learners.pairs import answer_column, widened, wrong_row
from espalier_learners.pieces import loss_bytes
from espalier_learners.prepared import on_prepared_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from espalier_sdk.protocols import Task
    from transformers import PreTrainedTokenizerBase as Tokenizer
    from transformers import Trainer, TrainingArguments

_LIKED = "liked"  # bool: the thumb, as the collator reads it


class KtoConfig(PluginConfig):
    """Where the thumb stands, how far the model may go from the reference, and what each thumb weighs."""

    label: str = Field(default="label", description="The column that says whether an answer was liked: true or false.")
    beta: float = Field(default=0.1, gt=0, description="How strongly the model is held to the reference; 0.1 is usual.")
    liked_weight: float = Field(
        default=1.0, gt=0, description="Weight of liked answers; raise it where there are few of them."
    )
    disliked_weight: float = Field(default=1.0, gt=0, description="Weight of the others.")


class Kto:
    """Makes answers that were liked likelier, and the others less likely, than a frozen reference has them.

    Trains with TRL's KTOTrainer (Ethayarajh et al. 2024). How far the model has gone is estimated by answers that stand
    under another question of the same batch.
    """

    contract: ClassVar[int] = 1
    Config: ClassVar[type[KtoConfig]] = KtoConfig
    heads: ClassVar[frozenset[HeadKind]] = frozenset({"causal-lm"})
    auxiliaries: ClassVar[Mapping[str, HeadKind]] = {}
    needs_reference: ClassVar[bool] = True
    loss_bytes = staticmethod(loss_bytes)

    def __init__(self, config: KtoConfig) -> None:
        self._config = config

    def columns(self, task: Task) -> Columns:
        """Returns the task's columns and that of the thumb; SpecError where the task has no answers."""
        answer_column(task)
        known = task.columns()
        return Columns(required={**known.required, self._config.label: "label"}, optional=known.optional)

    def encode(self, rows: pa.Table, *, task: Task, state: Any, tokenizer: Tokenizer, budget: Budget) -> pa.Table:
        """Returns what the task encodes, with the thumb; DataError where that is neither true nor false."""
        import pyarrow as pa

        answer_column(task)
        liked = _thumbs(rows, self._config.label)
        encoded = task.encode(rows, state=state, tokenizer=tokenizer, budget=budget)
        named = encoded.select([ENCODED_ROW, "input_ids", LABELS])
        return named.append_column(_LIKED, pa.array(liked, pa.bool_()))

    def trainer(self) -> type[Trainer]:
        """Returns TRL's KTOTrainer on rows that are encoded already."""
        from trl import KTOTrainer

        found: type[Trainer] = on_prepared_rows(KTOTrainer)
        return found

    def arguments(self, common: Mapping[str, Any]) -> TrainingArguments:
        """Returns the common arguments with the loss; SpecError where a batch has no second question."""
        from trl import KTOConfig

        if common["per_device_train_batch_size"] < 2:
            raise SpecError(
                "kto compares each answer with another question of its batch: a batch of 1 has none",
                field="training.batch_size",
                accepted="2 or more on each worker, and where.micro_batch_size too",
            )
        config = self._config
        found: TrainingArguments = KTOConfig(
            **common,
            beta=config.beta,
            desirable_weight=config.liked_weight,
            undesirable_weight=config.disliked_weight,
            max_length=None,
            disable_dropout=True,
        )
        return found

    def inputs(self, parts: Parts) -> Mapping[str, Any]:
        """Returns the collator of thumbs, and the reference."""
        return {"data_collator": PadThumbs(parts.tokenizer), "ref_model": parts.reference}


class PadThumbs:
    """Makes a batch of judged answers, and beside it each question with the answer of the one before."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._padding = tokenizer.pad_token_id

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Returns `input_ids`, `attention_mask` and `completion_mask`, again with `KL_` in front, and `label`."""
        import numpy as np
        import torch

        ids = [np.asarray(one["input_ids"]) for one in examples]
        cuts = [_answer_start(np.asarray(one[LABELS])) for one in examples]
        answers = [one[cut:] for one, cut in zip(ids, cuts, strict=True)]
        width = max(len(one) for one in ids)
        # What was swapped may not become longer than the model takes.
        swapped = [
            np.concatenate([one[:cut], answer])[:width]
            for one, cut, answer in zip(ids, cuts, [answers[-1], *answers[:-1]], strict=True)
        ]
        batch: dict[str, Any] = {}
        for prefix, rows in (("", ids), ("KL_", swapped)):
            masks = [np.arange(len(one)) >= cut for one, cut in zip(rows, cuts, strict=True)]
            columns = {
                "input_ids": [widened(one, width, self._padding) for one in rows],
                "attention_mask": [widened(np.ones_like(one), width, 0) for one in rows],
                "completion_mask": [widened(one, width, 0) for one in masks],
            }
            for name, values in columns.items():
                batch[prefix + name] = torch.from_numpy(np.stack(values).astype(np.int64))
        batch["label"] = torch.tensor([bool(one[_LIKED]) for one in examples])
        return batch


def _answer_start(labels: Any) -> int:
    """Returns where the last answer begins; a chat may have earlier ones, which nobody judged."""
    asked = (labels == IGNORED_LABEL).nonzero()[0]
    return int(asked[-1]) + 1 if len(asked) else 0


def _thumbs(rows: pa.Table, name: str) -> list[bool]:
    if name not in rows.column_names:
        raise DataError(f"there is no column {name!r}", field=name, accepted=", ".join(rows.column_names))
    said = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
    found = []
    for place, value in enumerate(rows.column(name).to_pylist()):
        known = said.get(value.strip().lower() if isinstance(value, str) else value)
        if known is None:
            remedy = "write true or false, or drop the row with a transform"
            raise wrong_row(rows, place, f"{value!r} says neither liked nor not", field=name, remedy=remedy)
        found.append(known)
    return found
