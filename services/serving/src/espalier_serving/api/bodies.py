"""Reading requests: the key and its role, the body within its limit, and its fields."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError

from espalier_serving.api.failures import ApiError
from espalier_serving.core import Core
from espalier_serving.keys import KnownKey, Role

DEFAULT_BODY_BYTES = 1024 * 1024
_MESSAGES = {"missing": "is missing", "extra_forbidden": "there is no such field"}
_NO_KEY = {"www-authenticate": "Bearer"}

Body = TypeVar("Body", bound="RequestBody")


class RequestBody(BaseModel):
    """The base of all request bodies: unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def core_of(request: Request) -> Core:
    """Returns what the routes of this replica share."""
    core: Core = request.app.state.core
    return core


async def authorize(request: Request, role: Role) -> KnownKey:
    """Returns the key of a request; raises ApiError 401 without a valid one, 403 without the role."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise ApiError(401, "send a key: Authorization: Bearer esk_...", code="missing_key", headers=_NO_KEY)
    key = await core_of(request).keys.find(given.strip())
    if key is None:
        raise ApiError(401, "the key is not valid", code="invalid_key", headers=_NO_KEY)
    if role not in key.roles:
        raise ApiError(403, f"the key has not the role {role!r}", code="missing_role")
    return key


async def read_body(request: Request, limit: int = DEFAULT_BODY_BYTES) -> bytes:
    """Returns the body; raises ApiError 413 above `limit` bytes, without reading more than that."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise too_long(limit)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_long(limit)
        parts.append(part)
    return b"".join(parts)


def too_long(limit: int) -> ApiError:
    """Returns the refusal of a body above `limit` bytes."""
    return ApiError(413, f"the body is longer than {limit} bytes", code="body_too_long")


def parse(model: type[Body], raw: bytes) -> Body:
    """Reads a body; raises ApiError 400 that names the first wrong field."""
    try:
        value: Any = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="not_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_body")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid(error) from None


async def body_of(request: Request, model: type[Body], limit: int = DEFAULT_BODY_BYTES) -> Body:
    """Reads the whole body of a request as a model."""
    return parse(model, await read_body(request, limit))


def invalid(error: ValidationError) -> ApiError:
    """Returns a validation error as the refusal of its first field."""
    first = error.errors()[0]
    param = ""
    for part in first["loc"]:
        param += f"[{part}]" if isinstance(part, int) else f".{part}" if param else str(part)
    message = _MESSAGES.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{param}: {message}" if param else message, code="invalid_field", param=param or None)
