"""Calling variants by Serve's handles, here over handles that are made up."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest
from espalier_serving.calling import VariantFailed
from espalier_serving.handles import ServeCaller


class MadeUpHandle:
    """A handle and its response: raises what it is told, or never answers."""

    def __init__(self, error: Exception | None = None) -> None:
        self.answer = self
        self.cancelled = False
        self._error = error

    def remote(self, items: Any) -> MadeUpHandle:
        return self

    def __await__(self) -> Generator[Any, None, Any]:
        if self._error is not None:
            raise self._error
        return asyncio.sleep(60).__await__()

    def cancel(self) -> None:
        self.cancelled = True


def caller_of(**handles: Any) -> ServeCaller:
    caller = ServeCaller()
    caller._handles = handles
    return caller


def test_an_error_that_nobody_foresaw_is_the_variants_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caller = caller_of(b=MadeUpHandle(ValueError("who knows")))
    with pytest.raises(VariantFailed, match="ValueError"):
        asyncio.run(caller.call("b", ["x"]))
    assert "who knows" in caplog.text


def test_a_call_that_is_given_up_is_cancelled_at_the_replica() -> None:
    handle = MadeUpHandle()

    async def work() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await caller_of(b=handle).call("b", ["x"])

    asyncio.run(work())
    assert handle.cancelled


def test_handles_of_variants_that_there_are_no_more_are_let_go() -> None:
    caller = caller_of(a=MadeUpHandle(), b=MadeUpHandle())
    caller.keep({"a", "c"})
    assert set(caller._handles) == {"a"}
