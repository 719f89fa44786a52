"""The gateway: the ingress of the static application, which serves the routes over Ray Serve."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from espalier_sdk.errors import ClusterError
from ray import serve

from espalier_serving.api.app import build_app
from espalier_serving.core import Core
from espalier_serving.database import open_database
from espalier_serving.handles import ServeCaller
from espalier_serving.meters import ServeMeters

START_SECONDS = 600.0
_STEP_SECONDS = 0.2

logger = logging.getLogger(__name__)


@serve.ingress()
class Gateway:
    """One replica of the gateway.

    Its start waits until every champion that opens answers a probe: KubeRay then switches an upgrade only to a cluster
    that can answer. The handle of Control is taken so that both are one application; it is never called.
    """

    async def __init__(self, database: str, control: Any) -> None:  # type: ignore[misc]
        self._control = control
        self._core = Core(database=open_database(database), caller=ServeCaller(), meters=ServeMeters())
        await self._core.start()
        await self._wait_for_champions()

    async def check_health(self) -> None:
        """Raises when a task behind the routes has ended, so that Serve starts another replica."""
        self._core.check_health()

    def __serve_build_asgi_app__(self) -> Any:
        """Returns the routes."""
        return build_app(self._core)

    async def _wait_for_champions(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._core.ready():
            if time.monotonic() > deadline:
                waiting = ", ".join(sorted(self._core.unprobed()))
                raise ClusterError(f"champions do not answer: {waiting}", code="champions")
            await asyncio.sleep(_STEP_SECONDS)
