"""Control: holds the applications of variants to what the rows say. One replica.

Applications live in Ray's control store, which a lost head takes with it: they are rebuilt from the rows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import timedelta

from espalier_sdk.errors import EspalierError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from espalier_serving import audit
from espalier_serving.applications import Applications, ServeApplications, Status, VariantSpec
from espalier_serving.database import Database, open_database
from espalier_serving.routing import STALE_SECONDS, superseded_since
from espalier_serving.tables import Variant

TICK_SECONDS = 0.5
RETIRE_AFTER = timedelta(seconds=STALE_SECONDS + 5)  # no gateway can hold a routing that names it any more
_ACTOR = "control"

logger = logging.getLogger(__name__)


class Control:
    """The replica that reconciles on a tick."""

    def __init__(self, database: str, store: str) -> None:
        self._database = open_database(database)
        self._applications = ServeApplications(store)
        self._loop = asyncio.get_running_loop().create_task(self._run())

    async def identity(self) -> str:
        """Returns what tells the database that is served here from others."""
        return self._database.identity

    async def check_health(self) -> None:
        """Raises when the loop has ended, so that Serve starts another replica."""
        if self._loop.done():
            raise RuntimeError("the loop of Control has ended")

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.to_thread(reconcile, self._database, self._applications)
            except (SQLAlchemyError, OSError, EspalierError) as error:
                logger.warning("variants were not reconciled: %s", error)
            except Exception:
                logger.exception("variants were not reconciled")
            await asyncio.sleep(TICK_SECONDS)


def reconcile(database: Database, applications: Applications) -> None:
    """Starts, marks and deletes applications once, so that they come nearer to the rows."""
    statuses = applications.statuses()
    with database.reading() as session:
        rows = {row.id: row for row in session.scalars(select(Variant))}
        missing = [row for row in rows.values() if _to_start(row, statuses.get(row.id))]
        delete = [variant for variant, status in statuses.items() if _deletable(session, rows.get(variant), status)]
        marks = _marks(rows, statuses)
    if missing:
        applications.start([VariantSpec.of(row) for row in missing])
        marks |= {row.id: ("loading", None) for row in missing if row.state != "loading"}
    if marks:
        _mark(database, marks)
    for variant in delete:
        applications.delete(variant)


def _to_start(row: Variant, status: Status | None) -> bool:
    if row.state in ("failed", "retired"):
        return False
    # An application that failed before its variant was proposed again says nothing about this try.
    return status is None or (row.state == "proposed" and status.state == "failed")


def _marks(rows: Mapping[str, Variant], statuses: Mapping[str, Status]) -> dict[str, tuple[str, str | None]]:
    wanted = {"starting": "loading", "running": "ready", "failed": "failed"}
    found: dict[str, tuple[str, str | None]] = {}
    for variant, status in statuses.items():
        row = rows.get(variant)
        if row is None or row.state in ("retired", "failed") or status.state not in wanted:
            continue
        # A ready variant that starts again (a lost replica) goes on being routed to.
        if wanted[status.state] != row.state and not (row.state == "ready" and status.state == "starting"):
            found[variant] = (wanted[status.state], status.reason or None)
    return found


def _deletable(session: Session, row: Variant | None, status: Status) -> bool:
    if status.state == "stopping":
        return False
    if row is None:
        return True
    if row.state == "failed":
        # It may have failed in another cluster only (an upgrade runs two Controls on one database).
        return status.state == "failed"
    if row.state != "retired":
        return False
    unnamed = superseded_since(session, row)
    return unnamed is not None and unnamed > RETIRE_AFTER


def _mark(database: Database, marks: Mapping[str, tuple[str, str | None]]) -> None:
    with database.writing() as session:
        for variant, (state, error) in marks.items():
            row = session.get(Variant, variant)
            if row is None or row.state == "retired":
                continue
            old = {"state": row.state}
            row.state, row.error = state, error
            subject = f"{row.endpoint}/{row.name}"
            new = {"state": state, "error": error}
            audit.record(session, actor=_ACTOR, action=f"variant.{state}", subject=subject, old=old, new=new)
