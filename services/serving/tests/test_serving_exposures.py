"""Exposures: grouped, durable before the answer, and there for every challenger answer even after `kill -9`."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from espalier_serving.database import Database, open_database
from espalier_serving.exposures import CompletionRow, ExposureRow, Writer, confirmed, write_rows
from espalier_serving.ids import now, uuid7
from espalier_serving.meters import NoMeters
from espalier_serving.tables import Completion, Exposure, Unit
from espalier_serving.testing import make_key, ready_endpoint
from sqlalchemy import func, select

pytestmark = pytest.mark.databases

SERVER = """
import asyncio, sys
import uvicorn
from espalier_serving.api.app import build_app
from espalier_serving.core import Core
from espalier_serving.database import open_database
from espalier_serving.testing import FixedCaller
url, port, a, b = sys.argv[1:]
core = Core(database=open_database(url), caller=FixedCaller({a: "A", b: "B"}))
uvicorn.run(build_app(core), host="127.0.0.1", port=int(port), log_level="error")
"""


def exposure(unit: str | None = "u", assigned: str = "a", request_id: str | None = None) -> ExposureRow:
    return ExposureRow(
        request_id=request_id or uuid7(),
        at=now(),
        endpoint="support",
        revision=1,
        assigned=assigned,
        reason="enrolled",
        key_id="k",
        experiment="e" if unit else None,
        unit_hash=unit,
        window_seconds=60,
    )


def count(database: Database, table: type) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_a_commit_is_on_disk_when_it_is_confirmed(url: str, database: Database) -> None:
    async def work() -> None:
        writer = Writer(database)
        writer.start()
        row = exposure()
        assert await confirmed(writer.commit(row), until=time.monotonic() + 5)
        other = open_database(url)
        with other.reading() as session:
            assert session.get(Exposure, row.request_id) is not None
        await writer.stop()

    asyncio.run(work())


def test_what_is_queued_together_is_one_transaction(database: Database) -> None:
    sizes: list[int] = []

    async def work() -> None:
        writer = Writer(database)
        write = writer._write
        writer._write = lambda rows: (sizes.append(len(rows)), write(rows))[1]  # type: ignore[method-assign]
        writer.start()
        await asyncio.gather(*(writer.commit(exposure(f"u{number}")) for number in range(50)))
        await writer.stop()

    asyncio.run(work())
    assert sum(sizes) == 50
    assert len(sizes) <= 2
    assert count(database, Unit) == 50


def test_a_completion_is_written_soon_and_nobody_waits(database: Database) -> None:
    async def work() -> float:
        writer = Writer(database)
        writer.start()
        begun = time.perf_counter()
        writer.append(CompletionRow(uuid7(), "a", 200, 1.0, "stop", ["x"], 0.5))
        queued = time.perf_counter() - begun
        await writer.flushed()
        await writer.stop()
        return queued

    assert asyncio.run(work()) < 0.01
    assert count(database, Completion) == 1


def test_a_writer_that_stops_writes_what_is_queued(database: Database) -> None:
    async def work() -> None:
        writer = Writer(database)
        writer.start()
        for _ in range(10):
            writer.append(exposure(None))
        await writer.stop()

    asyncio.run(work())
    assert count(database, Exposure) == 10


def test_a_cancelled_answer_leaves_its_commit_alone(database: Database) -> None:
    row = exposure()

    async def work() -> None:
        writer = Writer(database)
        writer.start()
        waiting = asyncio.create_task(confirmed(writer.commit(row), until=time.monotonic() + 5))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await writer.stop()

    asyncio.run(work())
    assert count(database, Exposure) == 1


def test_rows_that_cannot_be_written_are_not_confirmed_and_the_next_ones_are(database: Database) -> None:
    row = exposure()

    async def work() -> tuple[bool, bool, bool]:
        writer = Writer(database)
        writer.start()
        first = await confirmed(writer.commit(row), until=time.monotonic() + 5)
        twice = await confirmed(writer.commit(row), until=time.monotonic() + 5)  # breaks the primary key
        after = await confirmed(writer.commit(exposure()), until=time.monotonic() + 5)
        await writer.stop()
        return first, twice, after

    assert asyncio.run(work()) == (True, False, True)


def test_an_unforeseen_error_does_not_end_the_writer(database: Database) -> None:
    async def work() -> tuple[bool, bool]:
        writer = Writer(database)
        writer.start()
        write, writer._write = writer._write, lambda rows: rows.no_such_thing  # type: ignore[method-assign,attr-defined]
        first = await confirmed(writer.commit(exposure()), until=time.monotonic() + 5)
        writer._write = write  # type: ignore[method-assign]
        second = await confirmed(writer.commit(exposure()), until=time.monotonic() + 5)
        await writer.stop()
        return first, second

    assert asyncio.run(work()) == (False, True)


def test_rows_that_nobody_waits_for_are_dropped_and_counted_beyond_the_limit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espalier_serving.exposures.MAX_QUEUED", 3)

    async def work() -> int:
        writer = Writer(database)
        for _ in range(5):
            writer.append(exposure(None))
        writer.start()
        await writer.stop()
        return writer.dropped

    assert asyncio.run(work()) == 2
    assert count(database, Exposure) == 3


def completion(request_id: str | None = None) -> CompletionRow:
    return CompletionRow(request_id or uuid7(), "a", 200, 1.0, "stop", ["x"], 0.5)


class CountedDrops(NoMeters):
    """Keeps what is counted about rows that are lost."""

    def __init__(self) -> None:
        self.lost = 0

    def dropped(self, number: int) -> None:
        self.lost += number


def test_a_completion_that_cannot_be_written_keeps_no_exposure_and_no_other_completion(database: Database) -> None:
    twice = completion()
    meters = CountedDrops()

    async def work() -> bool:
        writer = Writer(database, meters)
        writer.append(twice)
        writer.append(twice)  # breaks the primary key
        writer.append(completion())
        written = writer.commit(exposure())
        writer.start()
        durable = await confirmed(written, until=time.monotonic() + 5)
        await writer.stop()
        return durable

    assert asyncio.run(work())
    assert (count(database, Exposure), count(database, Completion), meters.lost) == (1, 2, 1)


def test_rows_that_nobody_waits_for_are_tried_twice_and_then_counted_as_lost(database: Database) -> None:
    meters = CountedDrops()

    def refuses(rows: object) -> None:
        raise OSError("disk full")

    async def work() -> None:
        writer = Writer(database, meters)
        write, writer._write = writer._write, refuses  # type: ignore[method-assign]
        writer.start()
        writer.append(exposure())
        await writer.flushed()
        writer._write = write  # type: ignore[method-assign]
        await writer.flushed()
        assert (count(database, Exposure), meters.lost) == (1, 0)
        writer._write = writer._write_singly = refuses  # type: ignore[method-assign,assignment]
        writer.append(exposure())
        await writer.flushed()
        await writer.stop()

    asyncio.run(work())
    assert (count(database, Exposure), meters.lost) == (1, 1)


def test_a_unit_keeps_its_first_request_and_is_crossed_when_it_is_seen_in_both_arms(database: Database) -> None:
    rows = [
        exposure("u", "a", "r1"),
        exposure("u", "a", "r2"),
        exposure("v", "a"),
        exposure("v", "b"),
        exposure("v", "a"),
    ]
    with database.engine.execution_options(espalier_write=True).begin() as connection:
        for row in rows:
            write_rows(connection, [row])
    with database.reading() as session:
        u, v = session.get_one(Unit, ("e", "u")), session.get_one(Unit, ("e", "v"))
    assert (u.arm, u.first_request, u.crossed) == ("a", "r1", False)
    assert (u.closes_at - u.first_at).total_seconds() == 60
    assert (v.arm, v.crossed) == ("a", True)


def test_no_challenger_answer_without_its_exposure_even_after_kill_minus_nine(
    url: str, database: Database, tmp_path: Path
) -> None:
    ids = ready_endpoint(database, url, weights=(10, 90))
    key = make_key(database, "infer")
    seen: list[str] = []
    for _ in range(3):
        seen += _answers_until_killed(url, ids, key, answers=random.randint(10, 60))
    assert len(seen) >= 30
    with open_database(url).reading() as session:
        written = set(session.scalars(select(Exposure.request_id).where(Exposure.assigned == ids["b"])))
    assert set(seen) <= written


def _answers_until_killed(url: str, ids: dict[str, str], key: str, *, answers: int) -> list[str]:
    """Asks from eight threads a server that is killed after some answers; returns the challenger's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [sys.executable, "-c", SERVER, url, str(port), ids["a"], ids["b"]]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE) as server:
        try:
            _wait_until_live(port)
            seen: list[str] = []
            threads = [threading.Thread(target=_ask, args=(port, key, f"t{number}", seen)) for number in range(8)]
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + 30
            while len(seen) < answers and time.monotonic() < deadline:
                time.sleep(0.005)
            os.kill(server.pid, signal.SIGKILL)
            for thread in threads:
                thread.join(timeout=30)
        finally:
            server.kill()
    return seen


def _wait_until_live(port: int) -> None:
    for _ in range(300):
        try:
            httpx.get(f"http://127.0.0.1:{port}/health/live", trust_env=False)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the server did not start")


def _ask(port: int, key: str, name: str, seen: list[str]) -> None:
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client:
        number = 0
        while True:
            number += 1
            body = {"model": "support", "input": "x", "user": f"{name} {number}"}
            try:
                response = client.post("/v1/classify", content=json.dumps(body))
            except httpx.TransportError:
                return
            if response.headers.get("x-espalier-variant") == "b":
                assert response.json()["predictions"][0]["label"] == "B"
                seen.append(response.json()["id"])
