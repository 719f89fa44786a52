"""The request and response of a classification as pydantic models, made from its columns and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from espalier_sdk.columns import PREDICTION
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

Text = Annotated[str, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


_TEXT = "text_"


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    @model_validator(mode="after")
    def _not_empty(self) -> _Question:
        if not any(value.strip() for name, value in self.__dict__.items() if name.startswith(_TEXT)):
            raise ValueError("there is no text to read")
        return self


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str = Field(description="The label with the highest score.")
    score: float = Field(ge=0, le=1, description="The score of that label.")
    scores: dict[str, float] = Field(description="The score of each label; they sum to 1.")


def request_model(
    name: str, texts: Sequence[str], numeric: Sequence[str] = (), categorical: Sequence[str] = ()
) -> type[BaseModel]:
    """Returns the model of one question: each text column is required, and not all may be empty.

    Side columns, finite numbers and texts, may be left out. `model_dump()` gives a row with the columns' own names.
    """
    # A column may have a name that no Python field can have (`free text`, `class`, `_id`): the alias carries it.
    fields: dict[str, Any] = {
        f"{_TEXT}{place}": (Text, Field(alias=column, description=f"The column {column!r}."))
        for place, column in enumerate(texts)
    }
    for kind, columns, prefix in ((Number, numeric, "number_"), (Text, categorical, "category_")):
        for place, column in enumerate(columns):
            field = Field(default=None, alias=column, description=f"The column {column!r}; may be left out.")
            fields[f"{prefix}{place}"] = (kind | None, field)
    return create_model(name, __base__=_Question, **fields)


def response_model(labels: tuple[str, ...]) -> type[BaseModel]:
    """Returns the model of one answer, `{label, score, scores}`; a row that `decode` made is read as well."""

    class ClassificationResponse(_Answer):
        @model_validator(mode="before")
        @classmethod
        def _from_row(cls, value: Any) -> Any:
            if isinstance(value, dict) and PREDICTION in value:
                scores = dict(zip(labels, value["scores"], strict=True))
                return {"label": value[PREDICTION], "score": value["score"], "scores": scores}
            return value

    return ClassificationResponse


class _Labels(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: list[str] = Field(description="The labels whose score reaches the threshold, in the model's order.")
    scores: dict[str, float] = Field(description="The score of each label, each from 0 to 1 by itself.")


def sets_response_model(labels: tuple[str, ...]) -> type[BaseModel]:
    """Returns the model of an answer with several labels, `{labels, scores}`; it also reads a row of `decode`."""

    class LabelsResponse(_Labels):
        @model_validator(mode="before")
        @classmethod
        def _from_row(cls, value: Any) -> Any:
            if isinstance(value, dict) and PREDICTION in value:
                scores = dict(zip(labels, value["scores"], strict=True))
                return {"labels": value[PREDICTION], "scores": scores}
            return value

    return LabelsResponse
