"""What a gateway replica does beside answering: reads its routing, probes champions, tells whether it is ready."""

from __future__ import annotations

import asyncio
import threading
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
from espalier_serving.tables import Revision, Variant
from espalier_serving.testing import FixedCaller, make_key, model_ref, ready_endpoint
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


def test_an_unforeseen_error_does_not_end_the_poll(url: str, database: Database) -> None:
    ready_endpoint(database, url)

    async def work() -> None:
        core = Core(database=database, caller=FixedCaller({}))
        async with running(core):
            refresh, core.refresh = core.refresh, lambda: [].no_such_thing  # type: ignore[method-assign,attr-defined]
            await asyncio.sleep(0.2)
            core.refresh = refresh  # type: ignore[method-assign]
            before = core.snapshot.read_at
            await becomes(lambda: core.snapshot.read_at > before)
            core.check_health()

    asyncio.run(work())


@pytest.mark.parametrize("place", [0, 1])
def test_a_replica_whose_poll_or_probing_has_ended_is_not_healthy(url: str, database: Database, place: int) -> None:
    async def work() -> None:
        core = Core(database=database, caller=FixedCaller({}))
        async with running(core):
            core.check_health()
            core._tasks[place].cancel()
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="has ended"):
                core.check_health()

    asyncio.run(work())


def test_a_replica_whose_writer_has_ended_is_not_healthy(url: str, database: Database) -> None:
    async def work() -> None:
        core = Core(database=database, caller=FixedCaller({}))
        async with running(core):
            assert core.writer._task is not None
            core.writer._task.cancel()
            await asyncio.sleep(0.01)
            with pytest.raises(RuntimeError, match="writer"):
                core.check_health()
            core.writer._task = None

    asyncio.run(work())


def test_a_row_that_cannot_be_read_leaves_the_other_endpoints(url: str, database: Database) -> None:
    ready_endpoint(database, url)
    another_endpoint(url, database)
    with database.writing() as session:
        session.execute(update(Revision).where(Revision.endpoint == "sales").values(routing={"task": "classification"}))
    core = Core(database=database, caller=FixedCaller({}))
    core.refresh()
    assert set(core.snapshot.revisions) == {"support"}


def test_limits_of_a_newer_version_are_read_as_far_as_they_are_known(url: str, database: Database) -> None:
    ready_endpoint(database, url)
    with database.writing() as session:
        for row in session.query(Revision):
            row.routing = {**row.routing, "limits": {**row.routing["limits"], "max_items": 7, "max_stars": 3}}
    core = Core(database=database, caller=FixedCaller({}))
    core.refresh()
    routing = core.snapshot.current("support")
    assert routing is not None
    assert routing.limits.max_items == 7


def test_a_slow_read_of_the_routing_does_not_undo_a_newer_one(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready_endpoint(database, url)
    core = Core(database=database, caller=FixedCaller({}))
    first_reads = threading.Event()
    read = module.read_snapshot

    def slow_at_first(session: Any) -> Any:
        found = read(session)
        if not first_reads.is_set():
            first_reads.set()
            time.sleep(0.3)
        return found

    monkeypatch.setattr(module, "read_snapshot", slow_at_first)
    old = threading.Thread(target=core.refresh)
    old.start()
    first_reads.wait(5)
    another_endpoint(url, database)
    core.refresh()
    old.join()
    assert "sales" in core.snapshot.revisions


def test_a_key_that_there_is_not_is_looked_up_once_in_three_seconds(url: str, database: Database) -> None:
    ring = module.KeyRing(database)
    looked_up: list[str] = []
    read = ring._read
    ring._read = lambda key_id: (looked_up.append(key_id), read(key_id))[1]  # type: ignore[method-assign]
    unknown = f"esk_{'0' * 12}_{'0' * 48}"
    real = make_key(database)
    wrong = real[:-48] + "0" * 48

    async def work() -> None:
        for key in (unknown, unknown, wrong, wrong):
            assert await ring.find(key) is None
        assert await ring.find(real) is not None

    asyncio.run(work())
    assert looked_up == ["0" * 12, real[4:16]]


def test_the_poll_needs_none_of_the_threads_that_requests_use(url: str, database: Database) -> None:
    ready_endpoint(database, url)

    async def work() -> None:
        core = Core(database=database, caller=FixedCaller({}))
        async with running(core):
            free = threading.Event()
            taken = [asyncio.create_task(asyncio.to_thread(free.wait, 20)) for _ in range(64)]
            await asyncio.sleep(0.1)
            before = core.snapshot.read_at
            await becomes(lambda: core.snapshot.read_at > before)
            free.set()
            await asyncio.gather(*taken)

    asyncio.run(work())


def test_the_caller_is_told_which_variants_there_still_are(url: str, database: Database) -> None:
    ids = ready_endpoint(database, url)
    with database.writing() as session:
        session.execute(update(Variant).where(Variant.name == "b").values(state="retired"))
    caller = FixedCaller({})

    async def work() -> None:
        async with running(Core(database=database, caller=caller)):
            await becomes(lambda: caller.kept)

    asyncio.run(work())
    assert caller.kept == {ids["a"]}
