"""Calling variants through Ray Serve: handles by application name, and Serve's errors as the gateway knows them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from espalier_serving.applications import application_name
from espalier_serving.calling import Reply, VariantBusy, VariantDied, VariantError, VariantFailed, VariantUnavailable

PROBE_SECONDS = 5.0

logger = logging.getLogger(__name__)


class ServeCaller:
    """Calls variants by handles that are resolved when they are first needed."""

    def __init__(self) -> None:
        self._handles: dict[str, DeploymentHandle[Any]] = {}

    async def call(self, variant: str, items: Sequence[Any]) -> Reply:
        """Returns the variant's reply; raises a VariantError."""
        try:
            handle = self._handles.get(variant) or await self._resolve(variant)
            return await _answered(handle.answer.remote(items))
        except VariantError:
            raise
        except (RayError, RayServeException) as error:
            self._translate(variant, error)
        except Exception as error:  # whatever it is, the champion must be asked and the request recorded
            logger.exception("variant %s could not be called", variant)
            raise VariantFailed(f"the call raised {type(error).__name__}") from error

    def keep(self, variants: Collection[str]) -> None:
        """Lets go of the handles of all other variants."""
        self._handles = {variant: handle for variant, handle in self._handles.items() if variant in variants}

    async def probe(self, variant: str) -> bool:
        """Returns whether the variant answers within five seconds."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                handle = self._handles.get(variant) or await self._resolve(variant)
                return bool(await handle.probe.remote())
        except (TimeoutError, VariantError):
            return False
        except (RayError, RayServeException):
            self._handles.pop(variant, None)
            return False

    async def _resolve(self, variant: str) -> DeploymentHandle[Any]:
        try:
            handle = await asyncio.to_thread(serve.get_app_handle, application_name(variant))
        except (RayError, RayServeException) as error:
            raise VariantUnavailable("the variant is not running") from error
        return self._handles.setdefault(variant, handle)

    def _translate(self, variant: str, error: Exception) -> NoReturn:
        if isinstance(error, BackPressureError):
            raise VariantBusy("the variant has too many requests") from error
        if isinstance(error, DeploymentUnavailableError):
            self._handles.pop(variant, None)  # a deleted application's handle never recovers
            raise VariantUnavailable("the variant is not running") from error
        if isinstance(error, RayActorError | ReplicaUnavailableError):
            raise VariantDied("the variant's process ended before it answered") from error
        if isinstance(error, RayTaskError):
            raise VariantFailed(f"the variant raised {type(error.cause).__name__}") from error
        raise VariantFailed(f"the variant raised {type(error).__name__}") from error


async def _answered(response: DeploymentResponse[Reply]) -> Reply:
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()  # else the replica goes on with it, and holds its place, for nobody
        raise
