"""Routes for those who ask: `/v1/classify` and `/v1/models`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field, StrictStr
from starlette.responses import Response

from espalier_serving.answering import Answer, Ask
from espalier_serving.api.bodies import RequestBody, authorize, core_of, parse, read_body, too_long
from espalier_serving.api.failures import ApiError, error_response, json_response
from espalier_serving.assignment import (
    CONVERSATION_HEADER,
    MAX_UNIT_CHARACTERS,
    UNIT_HEADER,
    UnitKind,
    conversation_of,
    resolve_unit,
)
from espalier_serving.core import Core
from espalier_serving.deciding import Decision, decide
from espalier_serving.keys import KnownKey
from espalier_serving.routing import Routing

CLASSIFICATION = "classification"
_RETRY = {429: "1", 503: "5"}

router = APIRouter()


class ClassifyBody(RequestBody):
    """What `/v1/classify` is asked."""

    model: StrictStr = Field(min_length=1, max_length=128)
    input: Any
    user: StrictStr | None = Field(default=None, max_length=MAX_UNIT_CHARACTERS)
    safety_identifier: StrictStr | None = Field(default=None, max_length=MAX_UNIT_CHARACTERS)


@router.post("/v1/classify")
async def classify(request: Request) -> Response:
    """Answers one label for each input."""
    began = time.perf_counter()
    core = core_of(request)
    key = await authorize(request, "infer")
    worked = time.perf_counter() - began
    raw = await read_body(request, _longest_body(core))
    started = time.perf_counter() - worked  # the way of the body to the gateway is the client's and Serve's time
    body = parse(ClassifyBody, raw)
    ask = _ask(request, core, key, body, size=len(raw), started=started)
    answer = await core.answering.answer(ask)
    return _respond(request, ask, answer, body.model)


@router.get("/v1/models")
async def models(request: Request) -> Response:
    """Lists the endpoints that can be asked, in the shape of OpenAI's list."""
    await authorize(request, "infer")
    snapshot = core_of(request).snapshot
    found = [snapshot.current(name) for name in sorted(snapshot.revisions)]
    data = [
        {"id": one.endpoint, "object": "model", "created": int(one.active_at.timestamp()), "owned_by": "espalier"}
        for one in found
        if one is not None and one.champion is not None
    ]
    return json_response({"object": "list", "data": data})


def endpoint_routing(core: Core, name: str) -> tuple[Routing, str]:
    """Returns the routing in force and its champion; raises ApiError 404 or 503."""
    routing = core.snapshot.current(name)
    if routing is None:
        known = ", ".join(sorted(core.snapshot.revisions)) or "none"
        raise ApiError(404, f"there is no model {name!r}; there are: {known}", code="model_not_found", param="model")
    if routing.champion is None:
        raise ApiError(503, f"{name!r} has no champion yet", code="no_champion", headers={"retry-after": _RETRY[503]})
    return routing, routing.champion


def _ask(request: Request, core: Core, key: KnownKey, body: ClassifyBody, *, size: int, started: float) -> Ask:
    name, _, override = body.model.partition("/")
    routing, champion = endpoint_routing(core, name)
    if routing.task != CLASSIFICATION:
        raise ApiError(400, f"{name!r} answers {routing.task}", code="wrong_task", param="model")
    if override and "operate" not in key.roles:
        raise ApiError(403, "naming a variant needs the role 'operate'", code="missing_role", param="model")
    items = _items(body.input, routing, size)
    request_id: str = request.scope["espalier_request_id"]

    def unit_of(kind: UnitKind) -> str | None:
        headers = _unit_headers(request)
        conversation = None
        if kind == "conversation" and CONVERSATION_HEADER not in headers:  # only then is the first input hashed
            opening = items[0] if isinstance(items[0], str) else json.dumps(items[0], sort_keys=True)
            conversation = conversation_of(core.database.unit_key, key_id=key.id, system="", first_user_message=opening)
        return resolve_unit(
            kind,
            headers=headers,
            fields=(body.safety_identifier, body.user),
            conversation=conversation,
            request_id=request_id,
        )

    decision: Decision = decide(
        routing,
        champion,
        unit_of=unit_of,
        unit_key=core.database.unit_key,
        override=override or None,
        stale=core.snapshot.stale(),
    )
    return Ask(request_id, routing, champion, decision, items, key.id, started)


def _items(given: Any, routing: Routing, size: int) -> Sequence[Any]:
    if size > routing.limits.max_body_bytes:
        raise too_long(routing.limits.max_body_bytes)
    items = given if isinstance(given, list) else [given]
    if not items:
        raise ApiError(400, "input: there is nothing to answer", code="invalid_field", param="input")
    if len(items) > routing.limits.max_items:
        raise ApiError(
            413, f"input: {len(items)} items, at most {routing.limits.max_items}", code="too_many_items", param="input"
        )
    for place, item in enumerate(items):
        if not isinstance(item, str | dict):
            param = f"input[{place}]" if isinstance(given, list) else "input"
            message = f"{param}: must be a string, an object of the task's columns, or an array of either"
            raise ApiError(400, message, code="invalid_field", param=param)
    return items


def _unit_headers(request: Request) -> dict[str, str]:
    found = {}
    for name in (UNIT_HEADER, CONVERSATION_HEADER):
        if value := _text(request.headers.get(name, "")):
            if len(value) > MAX_UNIT_CHARACTERS:
                raise ApiError(
                    400, f"{name}: at most {MAX_UNIT_CHARACTERS} characters", code="invalid_header", param=name
                )
            found[name] = value
    return found


def _text(header: str) -> str:
    # Servers read headers as Latin-1; clients send UTF-8, as they do in a body, and a unit must be one in both.
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return header


def _longest_body(core: Core) -> int:
    current = (core.snapshot.current(name) for name in core.snapshot.revisions)
    return max((one.limits.max_body_bytes for one in current if one), default=1024 * 1024)


def _respond(request: Request, ask: Ask, answer: Answer, model: str) -> Response:
    headers = {
        "x-espalier-revision": str(ask.routing.revision),
        "x-espalier-assignment": answer.assignment,
        "x-espalier-overhead-ms": f"{1000 * answer.overhead:.3f}",
    }
    if ask.decision.experiment:
        headers["x-espalier-experiment"] = ask.decision.experiment
    if answer.served:
        headers["x-espalier-variant"] = ask.routing.name_of(answer.served)
    failure = _failure(answer, headers)
    if failure is not None:
        return error_response(request, failure)
    assert answer.reply is not None
    body = {"id": ask.request_id, "model": model, "predictions": answer.reply["predictions"]}
    return json_response(body, headers=headers)


def _failure(answer: Answer, headers: dict[str, str]) -> ApiError | None:
    if answer.error is not None:
        if answer.status in _RETRY:
            headers["retry-after"] = _RETRY[answer.status]
        return ApiError(answer.status, str(answer.error), code=answer.error.code, headers=headers)
    reply = answer.reply or {}
    if "invalid" not in reply:
        return None
    item, field = reply.get("item"), reply.get("field")
    param = "input" + (f"[{item}]" if item is not None else "") + (f".{field}" if field else "")
    return ApiError(400, f"{param}: {reply['invalid']}", code="invalid_field", param=param, headers=headers)
