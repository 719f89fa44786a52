"""What a gateway replica does beside answering: reads its routing, probes champions, tells whether it is ready."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from espalier_serving import core as module
from espalier_serving.api.app import build_app
from espalier_serving.core import Core
from espalier_serving.database import Database
from espalier_serving.proposing import propose
from espalier_serving.tables import Variant
from espalier_serving.testing import FixedCaller, model_ref, ready_endpoint
from sqlalchemy import update


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(module, "PROBE_STEP_SECONDS", 0.02)


class SlowProbes(FixedCaller):
    """A champion that loads lets a probe wait."""

    async def probe(self, variant: str) -> bool:
        if variant in self.down:
            await asyncio.sleep(60)
        return True


@asynccontextmanager
async def running(core: Core) -> AsyncIterator[httpx.AsyncClient]:
    await core.start()
    try:
        transport = httpx.ASGITransport(app=build_app(core))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            yield client
    finally:
        await core.stop()


async def becomes(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def another_endpoint(url: str, database: Database, state: str = "loading") -> str:
    """Makes endpoint `sales` with a champion of its own; returns the champion's id."""
    variants: list[Any] = [("c", model_ref("c"), "echo", {})]
    propose(url, endpoint="sales", task="classification", variants=variants, bootstrap="c")
    with database.writing() as session:
        session.execute(update(Variant).where(Variant.endpoint == "sales").values(state=state))
        return str(session.query(Variant.id).filter_by(endpoint="sales").scalar())


def test_a_replica_is_ready_once_its_champions_answer(url: str, database: Database) -> None:
    ids = ready_endpoint(database, url)
    caller = FixedCaller({})
    caller.down = {ids["a"]}

    async def work() -> None:
        core = Core(database=database, caller=caller)
        async with running(core) as client:
            waiting = await client.get("/health/ready")
            assert (waiting.status_code, waiting.json()["waiting_for"]) == (503, [ids["a"]])
            assert (await client.get("/health/live")).status_code == 200
            caller.down.clear()
            await becomes(core.ready)
            assert (await client.get("/health/ready")).status_code == 200

    asyncio.run(work())


def test_while_a_champion_loads_the_routing_is_read_and_the_others_are_probed(url: str, database: Database) -> None:
    ids = ready_endpoint(database, url)
    loading = another_endpoint(url, database)
    caller = SlowProbes({})
    caller.down = {loading}

    async def work() -> None:
        core = Core(database=database, caller=caller)
        async with running(core):
            await becomes(lambda: ids["a"] in core.probed)
            before = core.snapshot.read_at
            await becomes(lambda: core.snapshot.read_at > before)
            assert not core.ready()

    asyncio.run(work())


def test_another_endpoints_first_variant_leaves_a_replica_ready(url: str, database: Database) -> None:
    ready_endpoint(database, url)
    caller = FixedCaller({})

    async def work() -> None:
        core = Core(database=database, caller=caller)
        async with running(core) as client:
            await becomes(core.ready)
            later = another_endpoint(url, database)
            caller.down = {later}
            await becomes(lambda: later in core.snapshot.champions())
            answer = await client.get("/health/ready")
            assert answer.status_code == 200

    asyncio.run(work())


def test_a_champion_that_failed_is_told_and_keeps_no_other_endpoint_waiting(url: str, database: Database) -> None:
    ready_endpoint(database, url)
    failed = another_endpoint(url, database, state="failed")
    caller = FixedCaller({})
    caller.down = {failed}

    async def work() -> None:
        core = Core(database=database, caller=caller)
        async with running(core) as client:
            await becomes(core.ready)
            answer = await client.get("/health/ready")
            assert (answer.status_code, answer.json()["waiting_for"]) == (200, [failed])

    asyncio.run(work())


def test_where_every_champion_failed_a_replica_is_not_ready(url: str, database: Database) -> None:
    failed = another_endpoint(url, database, state="failed")
    caller = FixedCaller({})
    caller.down = {failed}

    async def work() -> None:
        core = Core(database=database, caller=caller)
        async with running(core):
            await asyncio.sleep(0.3)
            assert not core.ready()

    asyncio.run(work())
