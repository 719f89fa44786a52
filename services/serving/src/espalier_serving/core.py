"""What all routes of one gateway replica share: database, routing, keys, and the way to an answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from espalier_sdk.errors import EspalierError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from espalier_serving.answering import Answering
from espalier_serving.calling import Caller
from espalier_serving.database import Database
from espalier_serving.exposures import Writer
from espalier_serving.keys import KnownKey, key_id_of, known_keys
from espalier_serving.meters import Meters, NoMeters
from espalier_serving.routing import Snapshot, read_snapshot

POLL_SECONDS = 1.0
PROBE_STEP_SECONDS = 0.2
MAX_CACHED_KEYS = 10_000
UNKNOWN_KEY_SECONDS = 3.0

T = TypeVar("T")
logger = logging.getLogger(__name__)


class KeyRing:
    """Keys that clients have used, refreshed with the routing; a database that is away revokes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[str, KnownKey] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()  # until when: asking again costs no query

    async def find(self, key: str) -> KnownKey | None:
        """Returns a valid key, or None; a new one costs one query."""
        key_id = key_id_of(key)
        if key_id is None:
            return None
        known = self._known.get(key_id) or await self._look_up(key_id)
        if known is None:
            return None
        _keep(self._known, key_id, known)
        return known if known.opened_by(key) else None

    def refresh(self, session: Session) -> None:
        """Reads the cached keys again, so that a revoked one ends within a second."""
        if self._known:
            self._known.update(known_keys(session, list(self._known)))

    async def _look_up(self, key_id: str) -> KnownKey | None:
        if time.monotonic() < self._unknown.get(key_id, 0.0):
            return None
        found = await asyncio.to_thread(self._read, key_id)
        if found is None:
            _keep(self._unknown, key_id, time.monotonic() + UNKNOWN_KEY_SECONDS)
        return found

    def _read(self, key_id: str) -> KnownKey | None:
        with self._database.reading() as session:
            return known_keys(session, [key_id]).get(key_id)


def _keep(kept: OrderedDict[str, T], key_id: str, value: T) -> None:
    kept[key_id] = value
    kept.move_to_end(key_id)
    if len(kept) > MAX_CACHED_KEYS:
        kept.popitem(last=False)


@dataclass
class Core:
    """One gateway replica without its HTTP routes."""

    database: Database
    caller: Caller
    meters: Meters = field(default_factory=NoMeters)
    snapshot: Snapshot = field(default_factory=Snapshot)
    probed: set[str] = field(default_factory=set)  # champions that have answered a probe
    awaited: frozenset[str] = frozenset()  # champions when this replica started

    def __post_init__(self) -> None:
        self.keys = KeyRing(self.database)
        self.writer = Writer(self.database, self.meters)
        self.answering = Answering(caller=self.caller, writer=self.writer, meters=self.meters)
        self._tasks: list[asyncio.Task[None]] = []
        self._refreshing = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="routing")

    async def start(self) -> None:
        """Reads the routing, goes on reading it each second, and probes champions; a second call does nothing."""
        if self._tasks:
            return
        self.writer.start()
        await asyncio.to_thread(self.refresh)
        self.awaited = frozenset(self.snapshot.champions())
        self._tasks = [asyncio.create_task(self._polling()), asyncio.create_task(self._probing())]

    async def stop(self) -> None:
        """Ends reading and writing; what is queued is written first."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown(wait=False)
        await self.writer.stop()

    def refresh(self) -> None:
        """Reads the routing and the cached keys from the database; one at a time, so that neither goes back."""
        with self._refreshing, self.database.reading() as session:
            self.snapshot = read_snapshot(session)
            self.keys.refresh(session)

    async def probe_champions(self) -> None:
        """Asks the champions that have not answered yet, all at once."""
        await asyncio.gather(*(self._probe(variant) for variant in self.unprobed()))

    def check_health(self) -> None:
        """Raises RuntimeError when this replica reads no routing or writes no exposures any more."""
        if not self.writer.running:
            raise RuntimeError("the writer of exposures has ended")
        if not self._tasks or any(task.done() for task in self._tasks):
            raise RuntimeError("the poll of the routing or the probing of champions has ended")

    def unprobed(self) -> set[str]:
        """Returns the live champions that have not answered a probe."""
        return self.snapshot.champions() - self.probed

    def ready(self) -> bool:
        """Returns whether the routing is fresh and the champions that the replica started with have answered a probe.

        A champion that failed, or came later, keeps the other endpoints from nothing; one must answer, if there is any.
        """
        failed = {one.id for one in self.snapshot.variants.values() if one.state == "failed"}
        waiting = self.awaited & (self.unprobed() - failed)
        return not self.snapshot.stale() and not waiting and bool(self.probed or not self.awaited)

    async def read(self, work: Callable[[Session], T]) -> T:
        """Runs a query in a thread."""
        return await asyncio.to_thread(self._with, work, writing=False)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Runs a change in a thread, in one transaction, and lets this replica know it at once."""
        done = await asyncio.to_thread(self._with, work, writing=True)
        with contextlib.suppress(SQLAlchemyError, OSError):
            await asyncio.to_thread(self.refresh)
        return done

    def _with(self, work: Callable[[Session], T], *, writing: bool) -> T:
        with self.database.writing() if writing else self.database.reading() as session:
            return work(session)

    async def _probe(self, variant: str) -> None:
        try:
            if await self.caller.probe(variant):
                self.probed.add(variant)
        except Exception:
            logger.exception("variant %s was not probed", variant)

    async def _polling(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                # A thread of its own: those that requests use may all be taken.
                await asyncio.get_running_loop().run_in_executor(self._thread, self.refresh)
                self.caller.keep({one.id for one in self.snapshot.variants.values() if one.state != "retired"})
            except (SQLAlchemyError, OSError, EspalierError) as error:
                logger.warning("the routing was not read: %s", error)
            except Exception:  # whatever it is, the next row may be readable: a poll that ends would end all changes
                logger.exception("the routing was not read")

    async def _probing(self) -> None:
        # Beside the poll: a probe waits seconds for a champion that loads, while the routing must stay fresh.
        while True:
            await self.probe_champions()
            await asyncio.sleep(PROBE_STEP_SECONDS)
