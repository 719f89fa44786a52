"""The request and response of a task that writes text, as pydantic models."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from espalier_sdk.columns import NLL, PREDICTION, RATING, SCORED_TOKENS
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model, field_validator, model_validator

Words = Annotated[str, StringConstraints(strict=True, min_length=1)]


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    @field_validator("*")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.strip():
            raise ValueError("there is nothing to answer")
        return value


class Turn(BaseModel):
    """One message of a chat."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant"] = Field(description="Who speaks.")
    content: Words = Field(description="What is said.")


class Reply(BaseModel):
    """What was written, and how likely the given text is to the model where there was one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str | None = Field(default=None, description="What the model writes.")
    perplexity: float | None = Field(default=None, description="Of the text that was given, per token.")
    rating: float | None = Field(default=None, description="How good the answer that was given is to the model.")

    @model_validator(mode="before")
    @classmethod
    def _from_row(cls, value: Any) -> Any:
        """Reads a row that `decode` made as well."""
        if not isinstance(value, dict) or "text" in value or not ({PREDICTION, NLL, RATING} & value.keys()):
            return value
        tokens = value.get(SCORED_TOKENS)
        perplexity = math.exp(min(value[NLL] / tokens, 700.0)) if tokens else None
        return {"text": value.get(PREDICTION), "perplexity": perplexity, "rating": value.get(RATING)}


def prompt_request(column: str) -> type[BaseModel]:
    """Returns the model of one question as text; `model_dump()` gives a row with the column's own name."""
    fields: dict[str, Any] = {"prompt": (Words, Field(alias=column, description=f"The column {column!r}."))}
    return create_model("GenerationRequest", __base__=_Question, **fields)


def chat_request(column: str) -> type[BaseModel]:
    """Returns the model of one question as a chat whose last message is not an answer."""

    class _Chat(_Question):
        model_config = ConfigDict(
            json_schema_extra={"examples": [{column: [{"role": "user", "content": "warm up"}]}]},
        )

        @field_validator("messages", check_fields=False)
        @classmethod
        def _asks(cls, turns: list[Turn]) -> list[Turn]:
            if turns[0].role == "assistant":
                raise ValueError("the first message must be of the user or the system")
            if turns[-1].role == "assistant":
                raise ValueError("the last message is an answer already: nothing is asked")
            return turns

    fields: dict[str, Any] = {
        "messages": (list[Turn], Field(alias=column, min_length=1, description=f"The column {column!r}."))
    }
    return create_model("ChatRequest", __base__=_Chat, **fields)
