"""The Serve deployment of one variant: opens it, warms it up, and answers concurrent requests in batches."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

from ray import serve

from espalier_serving.calling import Reply
from espalier_serving.model_answers import load
from espalier_serving.variant_config import VariantConfig

logger = logging.getLogger(__name__)


class VariantReplica:
    """One process that answers for a variant."""

    async def __init__(self, *, engine: dict[str, Any], config: dict[str, Any], model: str, store: str) -> None:  # type: ignore[misc]
        options = VariantConfig.read(config)
        self._answers = load(engine, model=model, store=store)
        if options.threads is not None and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(options.threads)
        self._batched.set_max_batch_size(options.max_batch_requests)
        await self._answers.warm_up()

    async def answer(self, items: Sequence[Any]) -> Reply:
        """Returns the reply to one request."""
        reply: Reply | Exception = await self._batched(items)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def probe(self) -> bool:
        """Returns True: who can answer this is up and warm."""
        return True

    # No wait: requests that come while a batch is answered form the next one.
    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.0)  # type: ignore[untyped-decorator]
    async def _batched(self, requests: list[Sequence[Any]]) -> list[Reply | Exception]:
        try:
            return list(await self._answers.answer(requests))
        except Exception as error:
            if len(requests) == 1:
                return [error]
            logger.warning("a batch of %d failed, each is answered alone: %s", len(requests), error)
        return [await self._alone(items) for items in requests]

    async def _alone(self, items: Sequence[Any]) -> Reply | Exception:
        try:
            return (await self._answers.answer([items]))[0]
        except Exception as error:
            return error
