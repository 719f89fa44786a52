"""Making exposures durable: one task per replica commits all that is queued as one group.

Whoever needs certainty waits for the commit of its row; completions are appended and nobody waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, case, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from espalier_serving.database import WRITE, Database
from espalier_serving.meters import Meters, NoMeters
from espalier_serving.tables import Completion, Exposure, Unit

LINGER_SECONDS = 0.1  # how long rows that nobody waits for may gather
MAX_QUEUED = 20_000  # rows that nobody waits for, beyond which they are dropped and counted

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExposureRow:
    """A request was given a variant."""

    request_id: str
    at: datetime
    endpoint: str
    revision: int
    assigned: str
    reason: str
    key_id: str
    experiment: str | None = None
    unit_hash: str | None = None
    window_seconds: int = 0


@dataclass(frozen=True, slots=True)
class CompletionRow:
    """How a request ended."""

    request_id: str
    served: str | None
    status: int
    total_ms: float
    finish: str
    prediction: list[Any] | None = None
    score: float | None = None


class NotWritten(Exception):
    """A group of rows is not in the database."""


class Writer:
    """The one writer of a replica; lives on one event loop, writes in one thread."""

    def __init__(self, database: Database, meters: Meters | None = None) -> None:
        self._database = database
        self._meters = meters or NoMeters()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="exposures")
        self._connection: Connection | None = None
        self._rows: list[ExposureRow | CompletionRow] = []
        self._again: list[ExposureRow | CompletionRow] = []  # not written at the first try
        self._waiting: list[tuple[ExposureRow, asyncio.Future[None]]] = []
        self._flushing: list[asyncio.Future[None]] = []
        self._work = asyncio.Event()
        self._urgent = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self.dropped = 0

    def start(self) -> None:
        """Begins to write, on the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def running(self) -> bool:
        """Returns whether rows that are queued now will be written."""
        return self._task is not None and not self._task.done()

    async def stop(self) -> None:
        """Writes what is queued and ends."""
        self._stopping = True
        self._work.set()
        self._urgent.set()
        if self._task is not None:
            await self._task
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    def commit(self, row: ExposureRow) -> asyncio.Future[None]:
        """Queues an exposure and returns what is done when it is on disk; it fails when it could not be written."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Its failure may come after the answer stopped waiting: then nobody asks for the exception.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._waiting.append((row, future))
        self._work.set()
        self._urgent.set()
        return future

    def append(self, row: ExposureRow | CompletionRow) -> None:
        """Queues a row that nobody waits for; drops it when the database has not kept up."""
        if len(self._rows) >= MAX_QUEUED:
            self._drop(1)
            return
        self._rows.append(row)
        self._work.set()

    async def flushed(self) -> None:
        """Waits until all that is queued now has been tried to be written."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushing.append(future)
        self._work.set()
        self._urgent.set()
        await future

    async def _run(self) -> None:
        while self._rows or self._again or self._waiting or self._flushing or not self._stopping:
            await self._work.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._urgent.wait(), LINGER_SECONDS)
            await self._flush()

    async def _flush(self) -> None:
        rows, self._rows = self._rows, []
        again, self._again = self._again, []
        waiting, self._waiting = self._waiting, []
        flushing, self._flushing = self._flushing, []
        self._work.clear()
        self._urgent.clear()
        exposures = [row for row in rows if isinstance(row, ExposureRow)]
        completions = [row for row in rows if isinstance(row, CompletionRow)]
        # Exposures first and by themselves: no completion that cannot be written may keep a challenger's answer.
        error = await self._try([*(row for row, _ in waiting), *exposures])
        _settle([future for _, future in waiting], error)
        self._keep_for_later(exposures if error else [])
        self._keep_for_later(completions if await self._try(completions) else [])
        await self._try_again(again)
        _settle(flushing, None)

    def _keep_for_later(self, rows: Sequence[ExposureRow | CompletionRow]) -> None:
        if rows:
            self._again += rows
            self._work.set()

    async def _try(self, rows: Sequence[ExposureRow | CompletionRow]) -> NotWritten | None:
        if not rows:
            return None
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, rows)
        except Exception as error:  # whatever it is, the writer must go on: without it no challenger may answer
            logger.warning("%d rows were not written: %s", len(rows), error)
            return NotWritten(str(error))
        return None

    async def _try_again(self, rows: Sequence[ExposureRow | CompletionRow]) -> None:
        if not rows:
            return
        try:
            self._drop(await asyncio.get_running_loop().run_in_executor(self._thread, self._write_singly, rows))
        except Exception as error:
            logger.warning("%d rows are lost: %s", len(rows), error)
            self._drop(len(rows))

    def _drop(self, number: int) -> None:
        if number:
            self.dropped += number
            self._meters.dropped(number)

    def _write(self, rows: Sequence[ExposureRow | CompletionRow]) -> None:
        with self._transaction() as connection:
            write_rows(connection, rows)

    def _write_singly(self, rows: Sequence[ExposureRow | CompletionRow]) -> int:
        """Writes the rows of a group that failed, each by itself, and returns how many still cannot be."""
        refused = 0
        with self._transaction() as connection:
            for row in rows:
                try:
                    with connection.begin_nested():
                        write_rows(connection, [row])
                except SQLAlchemyError as error:
                    logger.warning("the row of request %s is lost: %s", row.request_id, error)
                    refused += 1
        return refused

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Connection]:
        if self._connection is None:
            self._connection = self._database.engine.connect().execution_options(**WRITE)
        try:
            with self._connection.begin():
                yield self._connection
        except BaseException:
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None


def _settle(waiting: Sequence[asyncio.Future[None]], error: Exception | None) -> None:
    for future in waiting:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def write_rows(connection: Connection, rows: Sequence[ExposureRow | CompletionRow]) -> None:
    """Writes exposures with their units, and completions, in the transaction of the connection."""
    exposures = [row for row in rows if isinstance(row, ExposureRow)]
    completions = [row for row in rows if isinstance(row, CompletionRow)]
    if exposures:
        connection.execute(insert(Exposure), [_exposure(row) for row in exposures])
    if units := _units(exposures):
        connection.execute(_enrol(connection.dialect.name), units)
    if completions:
        connection.execute(insert(Completion), [_completion(row) for row in completions])


def _exposure(row: ExposureRow) -> dict[str, Any]:
    return {
        "request_id": row.request_id,
        "at": row.at,
        "endpoint": row.endpoint,
        "revision": row.revision,
        "experiment": row.experiment,
        "unit_hash": row.unit_hash,
        "assigned": row.assigned,
        "reason": row.reason,
        "key_id": row.key_id,
    }


def _completion(row: CompletionRow) -> dict[str, Any]:
    return {
        "request_id": row.request_id,
        "served": row.served,
        "status": row.status,
        "ttft_ms": None,
        "total_ms": row.total_ms,
        "tokens_in": None,
        "tokens_out": None,
        "finish": row.finish,
        "prediction": row.prediction,
        "score": row.score,
    }


def _units(exposures: Sequence[ExposureRow]) -> list[dict[str, Any]]:
    # Sorted, so that two gateways take the row locks of Postgres in one order.
    return [
        {
            "experiment": row.experiment,
            "unit_hash": row.unit_hash,
            "arm": row.assigned,
            "first_request": row.request_id,
            "first_at": row.at,
            "closes_at": row.at + timedelta(seconds=row.window_seconds),
            "crossed": False,
        }
        for row in sorted(exposures, key=lambda row: (row.experiment or "", row.unit_hash or ""))
        if row.experiment is not None and row.unit_hash is not None
    ]


def _enrol(dialect: str) -> Any:
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = make(Unit)
    crossed = case((statement.excluded.arm != Unit.arm, True), else_=Unit.crossed)
    return statement.on_conflict_do_update(index_elements=["experiment", "unit_hash"], set_={"crossed": crossed})


async def confirmed(commit: asyncio.Future[None], *, until: float) -> bool:
    """Waits for a commit until a moment of `time.monotonic`; a cancelled answer leaves the commit alone."""
    try:
        await asyncio.wait_for(asyncio.shield(commit), max(0.0, until - time.monotonic()))
    except (TimeoutError, NotWritten):
        return False
    return True
