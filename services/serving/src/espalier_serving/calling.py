"""How the gateway calls a variant: the seam between the HTTP layer and Ray Serve, and how a call fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Protocol, TypedDict


class Reply(TypedDict, total=False):
    """What a variant returns: predictions in order, or why the input is wrong."""

    predictions: list[dict[str, Any]]
    invalid: str
    item: int | None
    field: str | None


class Caller(Protocol):
    """Calls variants by id."""

    async def call(self, variant: str, items: Sequence[Any]) -> Reply:
        """Returns the variant's reply; raises a VariantError."""
        ...

    async def probe(self, variant: str) -> bool:
        """Returns whether the variant answers."""
        ...

    def keep(self, variants: Collection[str]) -> None:
        """Lets go of what is held for all other variants."""
        ...


class VariantError(Exception):
    """A variant gave no answer."""

    status = 502
    code = "variant_failed"


class VariantFailed(VariantError):
    """The variant raised an error."""


class VariantDied(VariantError):
    """The replica died with the request unanswered."""

    code = "variant_died"


class VariantUnavailable(VariantError):
    """The variant has no application."""

    status = 503
    code = "variant_unavailable"


class VariantTimeout(VariantError):
    """The variant did not answer in time."""

    status = 504
    code = "variant_timeout"


class VariantBusy(VariantError):
    """The variant has as many open requests as it may have."""

    status = 429
    code = "variant_busy"


class Attempts:
    """Calls with each variant's own cap and deadline, and once more when a replica dies; never another variant."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._open: Counter[str] = Counter()

    async def call(self, variant: str, items: Sequence[Any], *, seconds: float, cap: int) -> Reply:
        """Returns the variant's reply within `seconds`; raises a VariantError."""
        if self._open[variant] >= cap:
            raise VariantBusy(f"{cap} requests are open at this variant")
        self._open[variant] += 1
        try:
            async with asyncio.timeout(seconds):
                return await self._twice(variant, items)
        except TimeoutError as error:
            raise VariantTimeout(f"no answer within {seconds:g} s") from error
        finally:
            self._open[variant] -= 1
            if not self._open[variant]:
                del self._open[variant]

    async def _twice(self, variant: str, items: Sequence[Any]) -> Reply:
        try:
            return await self._caller.call(variant, items)
        except VariantDied:
            return await self._caller.call(variant, items)
