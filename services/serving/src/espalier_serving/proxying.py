"""What Serve's HTTP proxies run before and after each request.

Ray Serve appends an `X-Request-ID` of its own to every answer; clients must see one id, the one in the database.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CALLBACK_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
CALLBACK = "espalier_serving.proxying:middlewares"
_NAME = b"x-request-id"


def middlewares() -> list[Middleware]:
    """Returns the middlewares that a proxy adds outside its own."""
    return [Middleware(OneRequestId)]


class OneRequestId:
    """Keeps the first request id of an answer, which is the application's where it gives one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""

        async def send_one(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = list(_without_repeats(message.get("headers", ())))
            await send(message)

        await self._app(scope, receive, send_one)


def _without_repeats(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name.lower() != _NAME or all(other.lower() != _NAME for other, _ in kept):
            kept.append((name, value))
    return kept
