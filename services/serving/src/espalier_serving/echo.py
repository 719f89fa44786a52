"""The engine `echo`: answers without a model, for benchmarks of the gateway and for trying an endpoint out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from espalier_serving.calling import Reply

_SLOW_SECONDS = 2.0


class EchoConfig(BaseModel):
    """How the engine answers, and how it fails."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str = Field(default="echo", description="The label of every answer.")
    delay_seconds: float = Field(default=0.0, ge=0, description="How long it waits before it answers.")
    slow_on: str | None = Field(default=None, description="A text on which it waits two seconds more.")
    slow_to_load_seconds: float = Field(default=0.0, ge=0, description="How long it takes to be ready.")
    fails_on: str | None = Field(default=None, description="A text on which it raises an error.")
    dies_on: str | None = Field(default=None, description="A text on which its process ends at once.")
    refuses_to_load: str | None = Field(default=None, description="The error with which it does not load.")


class Echo:
    """Answers each item with one label."""

    def __init__(self, config: EchoConfig) -> None:
        if config.refuses_to_load is not None:
            raise RuntimeError(config.refuses_to_load)
        self._config = config

    async def warm_up(self) -> None:
        """Waits as long as it shall take to be ready."""
        await asyncio.sleep(self._config.slow_to_load_seconds)

    async def answer(self, requests: Sequence[Sequence[Any]]) -> list[Reply]:
        """Returns a reply for each request."""
        slow = any(self._config.slow_on in _texts(items) for items in requests)
        await asyncio.sleep(self._config.delay_seconds + (_SLOW_SECONDS if slow else 0.0))
        return [self._reply(items) for items in requests]

    def _reply(self, items: Sequence[Any]) -> Reply:
        texts = _texts(items)
        if self._config.dies_on in texts:
            os._exit(1)
        if self._config.fails_on in texts:
            raise RuntimeError(f"asked to fail on {self._config.fails_on!r}")
        label = self._config.label
        return {"predictions": [{"label": label, "score": 1.0, "scores": {label: 1.0}} for _ in items]}


def _texts(items: Sequence[Any]) -> list[Any]:
    return [text for item in items for text in ([item] if isinstance(item, str) else item.values())]
