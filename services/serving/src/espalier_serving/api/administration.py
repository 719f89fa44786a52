"""Routes for those who administer: keys and the audit log; and health, which asks for no key."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request
from starlette.responses import Response

from espalier_serving import audit
from espalier_serving.api.bodies import RequestBody, authorize, body_of, core_of
from espalier_serving.api.failures import ApiError, json_response
from espalier_serving.keys import create_key, list_keys, revoke_key

MAX_ENTRIES = 1_000
_WHOLE = re.compile(r"[1-9][0-9]{0,17}")

router = APIRouter()


class KeyBody(RequestBody):
    """A key that shall be made."""

    roles: list[str]


@router.post("/v1/keys")
async def post_key(request: Request) -> Response:
    """Makes a key; only this answer shows it."""
    actor = await authorize(request, "admin")
    body = await body_of(request, KeyBody)
    made = await core_of(request).write(lambda session: create_key(session, roles=body.roles, actor=actor.id))
    return json_response(made, status=201)


@router.get("/v1/keys")
async def get_keys(request: Request) -> Response:
    """Lists keys without their secrets."""
    await authorize(request, "admin")
    return json_response({"data": await core_of(request).read(list_keys)})


@router.delete("/v1/keys/{key_id}")
async def delete_key(request: Request, key_id: str) -> Response:
    """Revokes a key."""
    actor = await authorize(request, "admin")
    await core_of(request).write(lambda session: revoke_key(session, key_id, actor=actor.id))
    return Response(status_code=204)


@router.get("/v1/audit")
async def get_audit(request: Request, before: str = "", limit: str = "100") -> Response:
    """Lists changes, the newest first; `before` is the id to go on from."""
    await authorize(request, "admin")
    for name, value in (("before", before or "1"), ("limit", limit)):
        if not _WHOLE.fullmatch(value):
            raise ApiError(400, f"{name}: must be a whole number from 1", code="invalid_field", param=name)
    found = await core_of(request).read(
        lambda session: audit.entries(
            session, before=int(before) if before else None, limit=min(int(limit), MAX_ENTRIES)
        )
    )
    return json_response({"data": found})


@router.get("/health/live")
async def live() -> Response:
    """Answers while the process does."""
    return json_response({"status": "live"})


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """Answers 200 when the routing is fresh and the champions there were at the start have answered a probe."""
    core = core_of(request)
    is_ready = core.ready()
    status = "ready" if is_ready else "waiting"
    body = {"status": status, "stale": core.snapshot.stale(), "waiting_for": sorted(core.unprobed())}
    return json_response(body, status=200 if is_ready else 503)
