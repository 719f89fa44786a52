"""The FastAPI application of a gateway: all routes, one error shape, a request id on every answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from espalier_serving.api import administration, failures, feedback, inference, operation
from espalier_serving.core import Core
from espalier_serving.ids import uuid7


def build_app(core: Core) -> ASGIApp:
    """Returns the application over what its routes share; its lifespan starts and stops that."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await core.start()
        yield
        await core.stop()

    app = FastAPI(title="Espalier endpoint", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.core = core
    failures.install(app)
    for module in (inference, feedback, operation, administration):
        app.include_router(module.router)
    return RequestId(app)  # outside the application, so that an answer to an unforeseen error has it as well


class RequestId:
    """Gives every request a UUID of version 7, which its answer carries in `x-request-id`.

    A client's own id is not taken over: the id is a primary key, and clients could make two requests one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["espalier_request_id"] = uuid7()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        await self._app(scope, receive, send_with_id)
