"""The route for what comes back later: `/v1/feedback`."""

from __future__ import annotations

import asyncio
import contextlib
import math
from datetime import UTC, datetime
from typing import Self

from fastapi import APIRouter, Request
from pydantic import (
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)
from starlette.responses import Response

from espalier_serving.api.bodies import RequestBody, authorize, body_of, core_of
from espalier_serving.api.failures import ApiError, json_response
from espalier_serving.assignment import MAX_UNIT_CHARACTERS
from espalier_serving.feedback import Item, record_feedback

MAX_ITEMS = 1_000
_FLUSH_SECONDS = 1.0
_MAX_BYTES = 2 * 1024 * 1024

router = APIRouter()


class FeedbackItem(RequestBody):
    """One outcome: of a request, or of a unit in an experiment."""

    request_id: StrictStr | None = Field(default=None, max_length=64)
    unit: StrictStr | None = Field(default=None, max_length=MAX_UNIT_CHARACTERS)
    experiment: StrictStr | None = Field(default=None, max_length=64)
    metric: StrictStr = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")
    value: StrictBool | StrictInt | StrictFloat
    observed_at: datetime | None = None
    key: StrictStr | None = Field(default=None, min_length=1, max_length=128)

    @field_validator("value")
    @classmethod
    def _finite(cls, value: float) -> float:
        try:
            finite = math.isfinite(value)
        except OverflowError:  # a whole number beyond what a float can hold
            finite = False
        if not finite:
            raise ValueError("must be a finite number")
        return value

    @field_validator("observed_at", mode="before")
    @classmethod
    def _moment(cls, value: object) -> datetime | None:
        if value is None:
            return None
        try:
            moment = datetime.fromisoformat(value) if isinstance(value, str) else None
            if moment is not None and moment.tzinfo is not None:
                return moment.astimezone(UTC)
        except (ValueError, OverflowError):  # in UTC it may lie before the year 1, or after 9999
            pass
        raise ValueError("must be a moment with its time zone, such as 2026-01-31T12:00:00Z")

    @model_validator(mode="after")
    def _subject(self) -> Self:
        by_unit = self.unit is not None and self.experiment is not None
        if (self.request_id is not None) == by_unit or (not by_unit and (self.unit or self.experiment)):
            raise ValueError("name either request_id, or unit and experiment")
        return self

    def to_item(self) -> Item:
        """Returns the outcome as it is recorded."""
        return Item(
            metric=self.metric,
            value=float(self.value),
            request_id=self.request_id,
            unit=self.unit.strip() if self.unit else None,
            experiment=self.experiment,
            observed_at=self.observed_at,
            key=self.key,
        )


class FeedbackBody(RequestBody):
    """Up to a thousand outcomes; with `model`, only those of that endpoint are known."""

    model: StrictStr | None = Field(default=None, max_length=128)
    items: list[FeedbackItem] = Field(min_length=1, max_length=MAX_ITEMS)


@router.post("/v1/feedback")
async def feedback(request: Request) -> Response:
    """Records outcomes; answers a status for each, in order."""
    key = await authorize(request, "feedback")
    body = await body_of(request, FeedbackBody, _MAX_BYTES)
    core = core_of(request)
    if body.model is not None and core.snapshot.current(body.model) is None:
        raise ApiError(404, f"there is no model {body.model!r}", code="model_not_found", param="model")
    items = [item.to_item() for item in body.items]
    with contextlib.suppress(TimeoutError):  # exposures that nobody waited for may still be queued
        await asyncio.wait_for(core.writer.flushed(), _FLUSH_SECONDS)
    statuses = await asyncio.to_thread(record_feedback, core.database, items, key_id=key.id, endpoint=body.model)
    for status in statuses:
        core.meters.feedback(status)
    return json_response({"items": [{"status": status} for status in statuses]})
