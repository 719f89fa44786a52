"""Outcomes that clients report: joined to what was exposed, kept once, and marked late when the window has closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from espalier_serving.assignment import UnitKind, unit_hash
from espalier_serving.database import WRITE, Database
from espalier_serving.ids import now, uuid7
from espalier_serving.tables import Experiment, Exposure, Outcome, Unit

Status = Literal["recorded", "duplicate", "late", "conflict", "unknown"]
_TRANSACTION = 100  # outcomes; a transaction of them holds SQLite's write lock for about two milliseconds

_Row = dict[str, Any]
_Content = tuple[Any, ...]  # what must be the same for a key that comes again


@dataclass(frozen=True, slots=True)
class Item:
    """One outcome as a client reports it: of a request, or of a unit in an experiment."""

    metric: str
    value: float
    request_id: str | None = None
    unit: str | None = None
    experiment: str | None = None
    observed_at: datetime | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class _Subject:
    experiment: str | None
    unit_hash: str | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class _Client:
    key_id: str
    endpoint: str | None  # the only one whose outcomes it means to report


def record_feedback(
    database: Database, items: Sequence[Item], *, key_id: str, endpoint: str | None = None
) -> list[Status]:
    """Stores outcomes and returns a status for each, in order; sent again with their keys, none is stored twice.

    recorded, or late (stored, but after the unit's window closed); duplicate: the same key with the same content;
    conflict: the same key with another; unknown: no such request, or no such unit in that experiment,
    or it is of another endpoint than the given one.
    """
    client = _Client(key_id, endpoint)
    return [status for part in _parts(items, _TRANSACTION) for status in _record(database, part, client)]


def _record(database: Database, items: Sequence[Item], client: _Client) -> list[Status]:
    try:
        return _write(database, items, client)
    except IntegrityError:  # another request stored one of the keys meanwhile: now it is seen
        return _write(database, items, client)


def _write(database: Database, items: Sequence[Item], client: _Client) -> list[Status]:
    # All that takes time is done before the write lock is taken: exposures wait for it, and challengers for them.
    with database.reading() as session:
        statuses, rows = _Feedback(session, database.unit_key, client).judge(items)
    if rows:
        with database.engine.execution_options(**WRITE).begin() as connection:
            connection.execute(insert(Outcome), rows)
    return statuses


class _Feedback:
    def __init__(self, session: Session, unit_key: bytes, client: _Client) -> None:
        self._session = session
        self._unit_key = unit_key
        self._key_id = client.key_id
        self._endpoint = client.endpoint
        self._received_at = now()

    def judge(self, items: Sequence[Item]) -> tuple[list[Status], list[_Row]]:
        subjects = self._subjects(items)
        windows = self._windows(subjects)
        seen = self._seen(items)
        latest = self._latest(subjects)
        statuses: list[Status] = []
        rows: list[_Row] = []
        for item, subject in zip(items, subjects, strict=True):
            status = self._status(item, subject, windows, seen)
            statuses.append(status)
            if subject is not None and status in ("recorded", "late"):
                rows.append(self._row(item, subject, latest, late=status == "late"))
                if item.key is not None:
                    seen[item.key] = _content(item, subject)
        return statuses, rows

    def _status(
        self,
        item: Item,
        subject: _Subject | None,
        windows: Mapping[tuple[str, str], datetime],
        seen: Mapping[str, _Content],
    ) -> Status:
        if subject is None:
            return "unknown"
        if item.key is not None and item.key in seen:
            return "duplicate" if seen[item.key] == _content(item, subject) else "conflict"
        closes_at = windows.get((subject.experiment or "", subject.unit_hash or ""))
        return "late" if closes_at is not None and self._received_at >= closes_at else "recorded"

    def _row(self, item: Item, subject: _Subject, latest: dict[tuple[str, str], str], *, late: bool) -> _Row:
        row: _Row = {
            "id": uuid7(),
            "experiment": subject.experiment,
            "unit_hash": subject.unit_hash,
            "request_id": subject.request_id,
            "metric": item.metric,
            "value": item.value,
            "observed_at": item.observed_at or self._received_at,
            "received_at": self._received_at,
            "late": late,
            "key_id": self._key_id,
            "idem_key": item.key,
            "supersedes": None,
        }
        if subject.request_id is not None and not late:  # a late value never takes the place of one that came in time
            row["supersedes"] = latest.get((subject.request_id, item.metric))
            latest[subject.request_id, item.metric] = row["id"]
        return row

    def _subjects(self, items: Sequence[Item]) -> list[_Subject | None]:
        exposures = self._exposures([item.request_id for item in items if item.request_id is not None])
        kinds = self._unit_kinds({item.experiment for item in items if item.experiment is not None})
        wanted = {
            place: (item.experiment, unit_hash(self._unit_key, kinds[item.experiment], item.unit))
            for place, item in enumerate(items)
            if item.request_id is None and item.unit is not None and item.experiment in kinds
        }
        known = self._known_units(set(wanted.values()))
        found: list[_Subject | None] = []
        for place, item in enumerate(items):
            if item.request_id is not None:
                found.append(exposures.get(item.request_id))
            elif wanted.get(place) in known:
                found.append(_Subject(*wanted[place], request_id=None))
            else:
                found.append(None)
        return found

    def _exposures(self, request_ids: Sequence[str]) -> dict[str, _Subject]:
        query = select(Exposure.request_id, Exposure.experiment, Exposure.unit_hash)
        query = query.where(Exposure.request_id.in_(request_ids))
        if self._endpoint is not None:
            query = query.where(Exposure.endpoint == self._endpoint)
        found = self._session.execute(query)
        return {request_id: _Subject(experiment, unit, request_id) for request_id, experiment, unit in found}

    def _unit_kinds(self, experiments: set[str]) -> dict[str | None, UnitKind]:
        query = select(Experiment.id, Experiment.unit).where(Experiment.id.in_(experiments))
        if self._endpoint is not None:
            query = query.where(Experiment.endpoint == self._endpoint)
        return {row[0]: cast("UnitKind", row[1]) for row in self._session.execute(query)}

    def _known_units(self, wanted: set[tuple[str | None, str]]) -> set[tuple[str | None, str]]:
        return set(self._windows([_Subject(experiment, unit, None) for experiment, unit in wanted]))

    def _windows(self, subjects: Sequence[_Subject | None]) -> dict[tuple[str, str], datetime]:
        wanted = {(one.experiment, one.unit_hash) for one in subjects if one and one.experiment and one.unit_hash}
        if not wanted:
            return {}
        # Both columns of the primary key are named: by unit alone SQLite reads the whole table.
        query = select(Unit.experiment, Unit.unit_hash, Unit.closes_at).where(
            Unit.experiment.in_({experiment for experiment, _ in wanted}),
            Unit.unit_hash.in_({unit for _, unit in wanted}),
        )
        return {(row[0], row[1]): row[2] for row in self._session.execute(query) if (row[0], row[1]) in wanted}

    def _seen(self, items: Sequence[Item]) -> dict[str, _Content]:
        keys = [item.key for item in items if item.key is not None]
        query = select(
            Outcome.idem_key,
            Outcome.metric,
            Outcome.value,
            Outcome.experiment,
            Outcome.unit_hash,
            Outcome.request_id,
        ).where(Outcome.key_id == self._key_id, Outcome.idem_key.in_(keys))
        return {str(key): tuple(content) for key, *content in self._session.execute(query)}

    def _latest(self, subjects: Sequence[_Subject | None]) -> dict[tuple[str, str], str]:
        requests = {one.request_id for one in subjects if one and one.request_id}
        query = select(Outcome.request_id, Outcome.metric, func.max(Outcome.id)).where(
            Outcome.request_id.in_(requests), ~Outcome.late
        )
        found = self._session.execute(query.group_by(Outcome.request_id, Outcome.metric))
        return {(str(request_id), metric): outcome for request_id, metric, outcome in found}


def _content(item: Item, subject: _Subject) -> _Content:
    return (item.metric, item.value, subject.experiment, subject.unit_hash, subject.request_id)


def _parts(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
