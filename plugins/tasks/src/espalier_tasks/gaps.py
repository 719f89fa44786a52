"""Texts with gaps: the request and response of the task `fill-mask`, and a text with its gaps filled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from espalier_sdk.columns import PREDICTION
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model, field_validator, model_validator

GAP = "[MASK]"  # how a question spells it, whatever the tokenizer's own mask is called
FILLS = "fills"
_CONTINUES = "##"  # how word pieces begin that belong to the word before


class Fill(BaseModel):
    """One answer for a gap."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = Field(description="What the tokenizer writes for the token.")
    score: float = Field(ge=0, le=1, description="Its probability.")


class FillMaskResponse(BaseModel):
    """The text with its gaps filled, and the likeliest tokens for each gap."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str | None = Field(default=None, description="The question with the likeliest token in each gap.")
    fills: list[list[Fill]] = Field(default=[], description="For each gap the likeliest tokens, the first first.")

    @model_validator(mode="before")
    @classmethod
    def _from_row(cls, value: Any) -> Any:
        """Reads a row that `decode` made as well."""
        if not isinstance(value, dict) or PREDICTION not in value:
            return value
        return {"text": value[PREDICTION], "fills": value.get(FILLS) or []}


def gap_request(column: str) -> type[BaseModel]:
    """Returns the model of a question; `model_dump()` gives a row with the column's own name."""

    class _Question(BaseModel):
        model_config = ConfigDict(
            extra="forbid",
            frozen=True,
            serialize_by_alias=True,
            json_schema_extra={"examples": [{column: f"Water the {GAP}."}]},
        )

        @field_validator("masked", check_fields=False)
        @classmethod
        def _asks(cls, text: str) -> str:
            if GAP not in text:
                raise ValueError(f"nothing is asked: write {GAP} where a word is missing")
            return text

    words = Annotated[str, StringConstraints(strict=True)]
    fields: dict[str, Any] = {"masked": (words, Field(alias=column, description=f"A text with {GAP} in it."))}
    return create_model("FillMaskRequest", __base__=_Question, **fields)


def written(text: str, fills: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Returns a text with the first answer in each gap; a word piece is joined to the word before."""
    pieces = text.split(GAP)
    found = pieces[0]
    for piece, fill in zip(pieces[1:], fills, strict=True):
        word = fill[0]["text"]
        if word.startswith(_CONTINUES) and len(word) > len(_CONTINUES):
            found, word = found.rstrip(), word.removeprefix(_CONTINUES)
        found += word + piece
    return found
