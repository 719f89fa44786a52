"""Outcomes that clients report: joined to what was exposed, kept once, and marked late when the window has closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from espalier_serving.assignment import UnitKind, unit_hash
from espalier_serving.database import Database
from espalier_serving.ids import now, uuid7
from espalier_serving.tables import Experiment, Exposure, Outcome, Unit

Status = Literal["recorded", "duplicate", "late", "conflict", "unknown"]
_CHUNK = 500  # names in one query; SQLite allows 32,766 variables, Postgres plans shorter lists better


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


def record_feedback(database: Database, items: Sequence[Item], *, key_id: str) -> list[Status]:
    """Stores outcomes in one transaction and returns a status for each, in order.

    recorded, or late (stored, but after the unit's window closed); duplicate: the same key with the same content;
    conflict: the same key with another; unknown: no such request, or no such unit in that experiment.
    """
    try:
        with database.writing() as session:
            return _Feedback(session, database.unit_key, key_id).record(items)
    except IntegrityError:  # another gateway stored one of the keys meanwhile: now it is seen
        with database.writing() as session:
            return _Feedback(session, database.unit_key, key_id).record(items)


class _Feedback:
    def __init__(self, session: Session, unit_key: bytes, key_id: str) -> None:
        self._session = session
        self._unit_key = unit_key
        self._key_id = key_id
        self._received_at = now()

    def record(self, items: Sequence[Item]) -> list[Status]:
        subjects = self._subjects(items)
        units = self._units(subjects)
        seen = self._seen(items)
        latest = self._latest(subjects)
        return [self._one(item, subject, units, seen, latest) for item, subject in zip(items, subjects, strict=True)]

    def _one(
        self,
        item: Item,
        subject: _Subject | None,
        units: dict[tuple[str, str], Unit],
        seen: dict[str, Outcome],
        latest: dict[tuple[str, str], str],
    ) -> Status:
        if subject is None:
            return "unknown"
        if item.key is not None and (before := seen.get(item.key)):
            return "duplicate" if _same(before, item, subject) else "conflict"
        unit = units.get((subject.experiment or "", subject.unit_hash or ""))
        row = self._outcome(item, subject, late=unit is not None and self._received_at >= unit.closes_at)
        if subject.request_id is not None:
            row.supersedes = latest.get((subject.request_id, item.metric))
            latest[subject.request_id, item.metric] = row.id
        self._session.add(row)
        if item.key is not None:
            seen[item.key] = row
        return "late" if row.late else "recorded"

    def _outcome(self, item: Item, subject: _Subject, *, late: bool) -> Outcome:
        return Outcome(
            id=uuid7(),
            experiment=subject.experiment,
            unit_hash=subject.unit_hash,
            request_id=subject.request_id,
            metric=item.metric,
            value=item.value,
            observed_at=item.observed_at or self._received_at,
            received_at=self._received_at,
            late=late,
            key_id=self._key_id,
            idem_key=item.key,
            supersedes=None,
        )

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
        found = {}
        for part in _chunks(request_ids):
            query = select(Exposure.request_id, Exposure.experiment, Exposure.unit_hash)
            for request_id, experiment, unit in self._session.execute(query.where(Exposure.request_id.in_(part))):
                found[request_id] = _Subject(experiment, unit, request_id)
        return found

    def _unit_kinds(self, experiments: set[str]) -> dict[str | None, UnitKind]:
        query = select(Experiment.id, Experiment.unit).where(Experiment.id.in_(experiments))
        return {row[0]: cast("UnitKind", row[1]) for row in self._session.execute(query)}

    def _known_units(self, wanted: set[tuple[str | None, str]]) -> set[tuple[str | None, str]]:
        return set(self._units([_Subject(experiment, unit, None) for experiment, unit in wanted]))

    def _units(self, subjects: Sequence[_Subject | None]) -> dict[tuple[str, str], Unit]:
        found = {}
        wanted = {(one.experiment, one.unit_hash) for one in subjects if one and one.experiment and one.unit_hash}
        for part in _chunks(sorted({unit for _, unit in wanted})):
            for row in self._session.scalars(select(Unit).where(Unit.unit_hash.in_(part))):
                if (row.experiment, row.unit_hash) in wanted:
                    found[row.experiment, row.unit_hash] = row
        return found

    def _seen(self, items: Sequence[Item]) -> dict[str, Outcome]:
        found = {}
        for part in _chunks([item.key for item in items if item.key is not None]):
            query = select(Outcome).where(Outcome.key_id == self._key_id, Outcome.idem_key.in_(part))
            found.update({str(row.idem_key): row for row in self._session.scalars(query)})
        return found

    def _latest(self, subjects: Sequence[_Subject | None]) -> dict[tuple[str, str], str]:
        found = {}
        for part in _chunks([one.request_id for one in subjects if one and one.request_id]):
            query = select(Outcome.request_id, Outcome.metric, Outcome.id).where(Outcome.request_id.in_(part))
            for request_id, metric, outcome in self._session.execute(query.order_by(Outcome.id)):
                found[str(request_id), metric] = outcome
        return found


def _same(before: Outcome, item: Item, subject: _Subject) -> bool:
    return (before.metric, before.value, before.experiment, before.unit_hash, before.request_id) == (
        item.metric,
        item.value,
        subject.experiment,
        subject.unit_hash,
        subject.request_id,
    )


def _chunks(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
