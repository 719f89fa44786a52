"""What one endpoint accepts and how long it takes: the limits that the gateway holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espalier_sdk.errors import SpecError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_BODY_BYTES = 64 * 1024 * 1024  # no endpoint may allow more


class Limits(BaseModel):
    """The limits of an endpoint, each with a default that suits a small classifier."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_body_bytes: int = Field(default=1024 * 1024, ge=64, le=MAX_BODY_BYTES, description="Longest request body.")
    max_items: int = Field(default=256, ge=1, le=10_000, description="Most inputs in one request.")
    timeout_seconds: float = Field(default=30.0, gt=0, le=300, description="Longest time for one answer.")
    max_concurrency: int = Field(
        default=64, ge=1, le=10_000, description="Requests that one gateway replica has open at one variant."
    )


def stored_limits(row: Mapping[str, Any]) -> Limits:
    """Reads limits of the database, where a newer version may have written more of them."""
    return Limits.model_validate({name: value for name, value in row.items() if name in Limits.model_fields})


def limits_of(given: dict[str, Any]) -> Limits:
    """Reads limits; raises SpecError that names the first wrong one."""
    try:
        return Limits.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(("limits", *map(str, first["loc"])))
        raise SpecError(
            first["msg"], field=field, given=first["input"], accepted=", ".join(Limits.model_fields)
        ) from None
