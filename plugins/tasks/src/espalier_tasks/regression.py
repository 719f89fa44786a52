"""The task `regression`: one number for each text, with numbers and categories beside it where there are some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from espalier_sdk.choice import PluginConfig
from espalier_sdk.columns import ENCODED_ROW, LABELS, LOGITS, PREDICTION, SIDE, TARGET
from espalier_sdk.errors import DataError
from espalier_sdk.model import Columns, Head, HeadKind
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from espalier_tasks.answers import request_model
from espalier_tasks.scale import ScaleState, combine_scales, finish_scale, observe_scale, targets_of
from espalier_tasks.texts import column_of, joined_texts, tokenised
from espalier_tasks.vectors import lists, matrix

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from espalier_sdk.model import Budget
    from transformers import PreTrainedTokenizerBase as Tokenizer


class RegressionConfig(PluginConfig):
    """Which columns are read, and which number is answered."""

    text: str | tuple[str, ...] = Field(
        description="The column that is read, or several that are joined, line by line."
    )
    target: str = Field(description="The column that holds the number.")
    numeric: tuple[str, ...] = Field(default=(), description="Columns of numbers that a question has beside its text.")
    categorical: tuple[str, ...] = Field(
        default=(), description="Columns of categories that a question has beside its text."
    )
    side: str = Field(
        default=SIDE,
        min_length=1,
        description="The column of vectors that a transform makes of those, if there are any.",
    )

    @field_validator("text")
    @classmethod
    def _some_text(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        names = (value,) if isinstance(value, str) else value
        if not names or not all(names):
            raise ValueError("must name one column, or several different ones")
        return value

    @model_validator(mode="after")
    def _apart(self) -> Self:
        names = [*self.texts, *self.beside]
        if self.target in names:
            raise ValueError(f"target {self.target!r} is also in the question: the answer must not be")
        if len({*names, self.side}) < len(names) + 1:
            raise ValueError("names a column twice")
        return self

    @property
    def texts(self) -> tuple[str, ...]:
        """Returns the text columns in their order."""
        return (self.text,) if isinstance(self.text, str) else self.text

    @property
    def beside(self) -> tuple[str, ...]:
        """Returns the side columns, as a question has them."""
        return (*self.numeric, *self.categorical)


class Regression:
    """One number for each text, learned in standard deviations from the mean and answered in its own unit."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[RegressionConfig]] = RegressionConfig
    State: ClassVar[type[ScaleState]] = ScaleState
    head_kind: ClassVar[HeadKind] = "sequence-classification"

    def __init__(self, config: RegressionConfig) -> None:
        self.config = config

    def columns(self) -> Columns:
        """Returns texts, side columns and target; the vector is optional, because a transform makes it."""
        config = self.config
        required = {
            **dict.fromkeys(config.texts, "text"),
            **dict.fromkeys(config.numeric, "number"),
            **dict.fromkeys(config.categorical, "category"),
            config.target: "value",
        }
        return Columns(required=required, optional={config.side: "vector"} if config.beside else {})

    def observe(self, rows: pa.Table) -> ScaleState:
        """Sums the targets of some rows; DataError where side columns are named and their vector is not there."""
        width = self._vectors(rows).shape[1] if self.config.beside else 0
        return observe_scale(column_of(rows, self.config.target), side_width=width)

    def combine(self, left: ScaleState, right: ScaleState) -> ScaleState:
        """Adds two sums."""
        return combine_scales(left, right)

    def finish(self, seen: ScaleState) -> ScaleState:
        """Returns mean and scale; DataError for targets that are no finite numbers, or all the same."""
        return finish_scale(seen, column=self.config.target)

    def head(self, state: ScaleState) -> Head:
        """Returns a head with one output that reads the side columns too."""
        return Head(kind=self.head_kind, outputs=1, side_width=state.side_width, problem="regression")

    def encode(self, rows: pa.Table, *, state: ScaleState, tokenizer: Tokenizer, budget: Budget) -> pa.Table:
        """Returns `row`, `input_ids`, `attention_mask` and `side`; with a target column `labels` and `target` too.

        Sequences are cut to `budget.max_tokens` and not padded. Labels are standardised, float32; a row without a
        target has the label NaN. DataError for a target that is no finite number.
        """
        import numpy as np
        import pyarrow as pa

        columns = tokenised(joined_texts(rows, self.config.texts), tokenizer=tokenizer, budget=budget)
        if state.side_width:
            vectors = self._vectors(rows)
            if vectors.shape[1] != state.side_width:
                raise DataError(
                    f"vectors of side columns have {vectors.shape[1]} numbers, the model reads {state.side_width}",
                    field=self.config.side,
                    remedy="use the transforms that the model was trained with",
                )
            columns[SIDE] = lists(vectors)
        if self.config.target in rows.column_names:
            values = targets_of(rows.column(self.config.target), name=self.config.target)
            columns[LABELS] = pa.array(((values - state.mean) / state.deviation).astype(np.float32))
            columns[TARGET] = pa.array(values, pa.float64(), mask=np.isnan(values))
        return pa.table(columns)

    def decode(self, outputs: pa.Table, encoded: pa.Table, *, state: ScaleState) -> pa.Table:
        """Returns `row`, `prediction` in the target's unit, and `target`; DataError where an answer is no number."""
        import numpy as np
        import pyarrow as pa

        answers = matrix(outputs.column(LOGITS), name=LOGITS)
        if outputs.num_rows and answers.shape[1] != 1:
            raise DataError(
                f"the model answers {answers.shape[1]} outputs per row, a regression has one",
                field=LOGITS,
                remedy="open the model with the state that it was trained with",
            )
        if not np.isfinite(answers).all():
            row = int(np.flatnonzero(~np.isfinite(answers))[0])
            raise DataError(
                f"the model answers no number for row {row}", field=LOGITS, remedy="train again at a lower rate"
            )
        values = answers.ravel().astype(np.float64) * state.deviation + state.mean
        columns: dict[str, Any] = {ENCODED_ROW: encoded.column(ENCODED_ROW), PREDICTION: pa.array(values)}
        if TARGET in encoded.column_names:
            columns[TARGET] = encoded.column(TARGET)
        return pa.table(columns)

    def request(self, state: ScaleState) -> type[BaseModel]:
        """Returns the model of one question: the text columns, and the side columns, which may be left out."""
        config = self.config
        return request_model("RegressionRequest", config.texts, config.numeric, config.categorical)

    def response(self, state: ScaleState) -> type[BaseModel]:
        """Returns the model of one answer, `{value}`; it also reads a row that `decode` made."""
        return RegressionResponse

    def _vectors(self, rows: pa.Table) -> np.ndarray:
        """Returns the side columns' vectors, (rows, width) float32."""
        import numpy as np
        import pyarrow as pa

        name = self.config.side
        if name not in rows.column_names:
            raise DataError(
                f"there is no column {name!r} with the side columns as vectors",
                code="missing_column",
                field="side",
                accepted=", ".join(rows.column_names),
                remedy=f"add the transform `encode` with {', '.join(self.config.beside)} to the data",
            )
        column = rows.column(name)
        if not pa.types.is_list(column.type) or column.null_count:
            raise DataError(f"column {name!r} holds {column.type}, not a vector in every row", field=name)
        found = matrix(column, name=name)
        if not np.isfinite(found).all():
            raise DataError(f"column {name!r} holds a vector with a number that is not finite", field=name)
        return found


class RegressionResponse(BaseModel):
    """One answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float = Field(allow_inf_nan=False, description="The number, in the unit of the target.")

    @model_validator(mode="before")
    @classmethod
    def _from_row(cls, value: Any) -> Any:
        return {"value": value[PREDICTION]} if isinstance(value, dict) and PREDICTION in value else value
