"""The routing that a gateway holds in memory: a snapshot of revisions and variants, read again each second."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from espalier_serving.assignment import Split, UnitKind
from espalier_serving.ids import now
from espalier_serving.limits import Limits, stored_limits
from espalier_serving.tables import Revision, Variant

STALE_SECONDS = 10.0  # a snapshot older than this answers from the champion only

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunningExperiment:
    """The part of a running experiment that routing needs."""

    id: str
    split: Split
    unit: UnitKind
    control: str
    treatment: str
    window_seconds: int


@dataclass(frozen=True, slots=True)
class Routing:
    """One revision of an endpoint, ready for use."""

    endpoint: str
    revision: int
    active_at: datetime
    task: str
    champion: str | None
    variants: Mapping[str, str]  # name -> id
    names: Mapping[str, str]  # id -> name
    limits: Limits
    experiment: RunningExperiment | None

    def name_of(self, variant: str) -> str:
        """Returns the name of a variant of this revision."""
        return self.names.get(variant, variant)


@dataclass(frozen=True, slots=True)
class VariantState:
    """A variant as it stood when the snapshot was read."""

    id: str
    endpoint: str
    state: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All endpoints as they stood at one moment."""

    revisions: Mapping[str, tuple[Routing, ...]] = field(default_factory=dict)  # by endpoint, oldest first
    variants: Mapping[str, VariantState] = field(default_factory=dict)
    read_at: float = float("-inf")  # time.monotonic

    def current(self, endpoint: str, moment: datetime | None = None) -> Routing | None:
        """Returns the revision in force; the very first of an endpoint is in force at once."""
        known = self.revisions.get(endpoint, ())
        moment = moment or now()
        in_force = [routing for routing in known if routing.active_at <= moment]
        return in_force[-1] if in_force else (known[0] if known else None)

    def stale(self) -> bool:
        """Returns whether the database has not been read for too long."""
        return time.monotonic() - self.read_at > STALE_SECONDS

    def champions(self) -> set[str]:
        """Returns the variants without which an endpoint cannot answer, now or once a known revision is in force."""
        known = (routing for routings in self.revisions.values() for routing in routings)
        return {routing.champion for routing in known if routing.champion}


def read_snapshot(session: Session) -> Snapshot:
    """Reads the revisions that are in force or will be, and the state of all variants."""
    begun = time.monotonic()
    moment = now()
    in_force = (
        select(Revision.endpoint, func.max(Revision.revision).label("revision"))
        .where(Revision.active_at <= moment)
        .group_by(Revision.endpoint)
        .subquery()
    )
    query = (
        select(Revision)
        .outerjoin(in_force, Revision.endpoint == in_force.c.endpoint)
        .where(in_force.c.revision.is_(None) | (Revision.revision >= in_force.c.revision))
        .order_by(Revision.endpoint, Revision.revision)
    )
    found: defaultdict[str, list[Routing]] = defaultdict(list)
    for row in session.scalars(query):
        try:
            routing = routing_of(row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # one bad row stops no other endpoint
            logger.error("revision %d of endpoint %r cannot be read: %r", row.revision, row.endpoint, error)
        else:
            found[row.endpoint].append(routing)
    variants = session.execute(select(Variant.id, Variant.endpoint, Variant.state))
    return Snapshot(
        revisions={endpoint: tuple(routings) for endpoint, routings in found.items()},
        variants={row[0]: VariantState(*row) for row in variants},
        read_at=begun,
    )


def routing_of(row: Revision) -> Routing:
    """Reads the routing of a revision."""
    given: dict[str, Any] = row.routing
    return Routing(
        endpoint=row.endpoint,
        revision=row.revision,
        active_at=row.active_at,
        task=given["task"],
        champion=given["champion"],
        variants=given["variants"],
        names={variant: name for name, variant in given["variants"].items()},
        limits=stored_limits(given["limits"]),
        experiment=_experiment(given["experiment"]),
    )


def _experiment(given: dict[str, Any] | None) -> RunningExperiment | None:
    if given is None or given["state"] != "running":
        return None
    control, treatment = given["weights"]
    return RunningExperiment(
        id=given["id"],
        split=Split(salt=given["salt"], weights=(control, treatment), coverage=given["coverage"]),
        unit=given["unit"],
        control=given["control"],
        treatment=given["treatment"],
        window_seconds=given["window_seconds"],
    )


def superseded_since(session: Session, variant: Variant) -> timedelta | None:
    """Returns for how long no revision in force names a variant; None while one does or will be."""
    latest = session.scalars(
        select(Revision).where(Revision.endpoint == variant.endpoint).order_by(Revision.revision.desc()).limit(1)
    ).first()
    if latest is None or variant.id in latest.routing["variants"].values():
        return None
    return now() - latest.active_at
