"""The task `classification`: one label of a closed list for each text, or with `multi_label` any number of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from espalier_sdk.choice import PluginConfig
from espalier_sdk.columns import ENCODED_ROW, LABELS, LOGITS, PREDICTION, SCORE, SCORES, TARGET
from espalier_sdk.errors import DataError
from espalier_sdk.model import Columns, Head, HeadKind
from pydantic import BaseModel, Field, field_validator, model_validator

from espalier_tasks.answers import request_model, response_model, sets_response_model
from espalier_tasks.label_sets import above, label_sets, observe_sets, sigmoid, zeros_and_ones
from espalier_tasks.labels import LabelState, combine_labels, finish_labels, observe_labels
from espalier_tasks.texts import as_text, joined_texts, tokenised
from espalier_tasks.vectors import lists

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from espalier_sdk.model import Budget
    from transformers import PreTrainedTokenizerBase as Tokenizer

UNKNOWN_LABEL = -100  # the label of a row whose target is not in the label map: losses leave it out


class ClassificationConfig(PluginConfig):
    """Which columns are read, and which labels there are."""

    text: str | tuple[str, ...] = Field(
        description="The column that is read, or several that are joined, line by line."
    )
    target: str = Field(description="The column that holds the label.")
    labels: tuple[str, ...] | None = Field(
        default=None,
        min_length=2,
        description="All labels in a lasting order; default: those of the train split, sorted.",
    )
    multi_label: bool = Field(
        default=False, strict=True, description="A row has any number of labels: the target is a list of them."
    )
    threshold: float = Field(default=0.5, gt=0, lt=1, description="multi_label: the score from which a label is given.")
    separator: str | None = Field(
        default=None,
        min_length=1,
        description="multi_label: what stands between labels that are joined in one text; an empty text is no label.",
    )

    @field_validator("text")
    @classmethod
    def _some_text(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        names = (value,) if isinstance(value, str) else value
        if not names or len(set(names)) < len(names) or not all(names):
            raise ValueError("must name one column, or several different ones")
        return value

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.target in self.texts:
            raise ValueError(f"target {self.target!r} is also a text column: the answer must not be in the question")
        if self.labels is not None and len(set(self.labels)) < len(self.labels):
            raise ValueError("labels must differ from each other")
        unused = [name for name in ("threshold", "separator") if name in self.model_fields_set]
        if unused and not self.multi_label:
            raise ValueError(f"{unused[0]} is for several labels per row: say multi_label: true, or remove it")
        return self

    @property
    def texts(self) -> tuple[str, ...]:
        """Returns the text columns in their order."""
        return (self.text,) if isinstance(self.text, str) else self.text


class Classification:
    """One label for each text, or with `multi_label` a set of them, with a score for every label."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[ClassificationConfig]] = ClassificationConfig
    State: ClassVar[type[LabelState]] = LabelState
    head_kind: ClassVar[HeadKind] = "sequence-classification"

    def __init__(self, config: ClassificationConfig) -> None:
        self.config = config

    @property
    def served(self) -> bool:
        """Tells whether the endpoint can answer: it gives one label for each text."""
        return not self.config.multi_label

    def columns(self) -> Columns:
        """Returns the text columns and the target."""
        use = "labels" if self.config.multi_label else "label"
        return Columns(required={**dict.fromkeys(self.config.texts, "text"), self.config.target: use})

    def targets(self, rows: pa.Table) -> pa.ChunkedArray:
        """Returns the target of each row as metrics read it: text, or with `multi_label` a list of labels."""
        if self.config.multi_label:
            return label_sets(rows, self.config.target, separator=self.config.separator)
        return as_text(rows, self.config.target)

    def observe(self, rows: pa.Table) -> LabelState:
        """Counts the labels of some rows."""
        targets = self.targets(rows)
        return observe_sets(targets) if self.config.multi_label else observe_labels(targets)

    def combine(self, left: LabelState, right: LabelState) -> LabelState:
        """Adds two counts."""
        return combine_labels(left, right)

    def finish(self, seen: LabelState) -> LabelState:
        """Returns the label map; raises DataError for fewer than two classes or a label that was not declared."""
        return finish_labels(seen, column=self.config.target, declared=self.config.labels)

    def head(self, state: LabelState) -> Head:
        """Returns a head with one output per label."""
        problem: Literal["single-label", "multi-label"] = "multi-label" if self.config.multi_label else "single-label"
        return Head(kind=self.head_kind, outputs=len(state.labels), problem=problem)

    def encode(self, rows: pa.Table, *, state: LabelState, tokenizer: Tokenizer, budget: Budget) -> pa.Table:
        """Returns `row`, `input_ids` and `attention_mask`, and with a target column `labels` and `target`.

        Sequences are cut to `budget.max_tokens` and not padded. A target that is unknown or empty has the
        label -100; its text stays in `target`. With `multi_label` labels are a list of zeros and ones, one per label.
        """
        import pyarrow as pa

        columns = tokenised(joined_texts(rows, self.config.texts), tokenizer=tokenizer, budget=budget)
        if self.config.target in rows.column_names:
            target = self.targets(rows)
            if self.config.multi_label:
                columns[LABELS] = lists(zeros_and_ones(target, state.labels))
            else:
                columns[LABELS] = _codes(target, state.labels)
            columns[TARGET] = target
        return pa.table(columns)

    def decode(self, outputs: pa.Table, encoded: pa.Table, *, state: LabelState) -> pa.Table:
        """Returns `row`, `prediction`, `score` and `scores` (softmax, in the order of the labels), and `target`.

        With `multi_label`, `prediction` is the list of labels whose score (sigmoid) reaches the threshold, and there
        is no `score`.
        """
        import numpy as np
        import pyarrow as pa

        logits = _logits(outputs, labels=len(state.labels))  # (rows, labels) float32
        columns: dict[str, pa.Array | pa.ChunkedArray] = {ENCODED_ROW: encoded.column(ENCODED_ROW)}
        if self.config.multi_label:
            scores = sigmoid(logits)
            columns[PREDICTION] = above(scores, state.labels, self.config.threshold)
        else:
            scores = _softmax(logits)
            best = scores.argmax(axis=1)
            columns[PREDICTION] = pa.array(np.asarray(state.labels, dtype=object)[best], pa.string())
            columns[SCORE] = pa.array(scores[np.arange(len(best)), best], pa.float32())
        columns[SCORES] = lists(scores)
        if TARGET in encoded.column_names:
            columns[TARGET] = encoded.column(TARGET)
        return pa.table(columns)

    def request(self, state: LabelState) -> type[BaseModel]:
        """Returns the model of one question: the text columns."""
        return request_model("ClassificationRequest", self.config.texts)

    def response(self, state: LabelState) -> type[BaseModel]:
        """Returns the model of one answer, `{label, score, scores}`; it also reads a row that `decode` made.

        With `multi_label` it is `{labels, scores}`.
        """
        return (sets_response_model if self.config.multi_label else response_model)(state.labels)


def _codes(target: pa.ChunkedArray, labels: tuple[str, ...]) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(target, value_set=pa.array(labels, pa.string()))
    return pc.fill_null(found.cast(pa.int64()), UNKNOWN_LABEL)


def _logits(outputs: pa.Table, *, labels: int) -> np.ndarray:
    import numpy as np

    column: Any = outputs.column(LOGITS).combine_chunks()
    if hasattr(column, "chunks"):
        column = column.chunk(0) if column.num_chunks else column
    flat = column.flatten().to_numpy(zero_copy_only=False) if outputs.num_rows else np.zeros(0, np.float32)
    if flat.size != outputs.num_rows * labels:
        raise DataError(
            f"the model answers {flat.size / outputs.num_rows:g} outputs per row, the task has {labels} labels",
            field=LOGITS,
            remedy="open the model with the state that it was trained with",
        )
    if not np.isfinite(flat).all():
        row = int(np.flatnonzero(~np.isfinite(flat))[0]) // labels
        raise DataError(
            f"the model answers no number for row {row}", field=LOGITS, remedy="train again at a lower rate"
        )
    return flat.reshape(outputs.num_rows, labels).astype(np.float32, copy=False)


def _softmax(logits: np.ndarray) -> np.ndarray:
    import numpy as np

    if not logits.size:
        return logits
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
    return scores
