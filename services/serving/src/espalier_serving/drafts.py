"""Starting experiments that pipelines drafted, once both their variants are ready. Drafts of operators stay theirs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from espalier_sdk.errors import Refused
from sqlalchemy.orm import Session

from espalier_serving.database import Database
from espalier_serving.endpoints import live_experiment
from espalier_serving.experiments import drafts_of, start_experiment
from espalier_serving.proposing import PIPELINE
from espalier_serving.tables import Endpoint, Experiment, Variant


@dataclass(frozen=True, slots=True)
class Started:
    """An experiment that has just been started, with the names of its variants."""

    id: str
    endpoint: str
    control: str
    treatment: str


def start_drafts(database: Database, endpoint: str, *, actor: str) -> list[Started]:
    """Starts the drafts of an endpoint that can be; returns those whose start is committed."""
    with database.reading() as session:
        startable = _startable(session, endpoint)
    started = []
    for draft in startable:
        # Each in a transaction of its own: what refuses one, such as another that has just begun, undoes no other.
        with contextlib.suppress(Refused):
            with database.writing() as session:
                start_experiment(session, draft.id, if_match="*", actor=actor)
            started.append(draft)
    return started


def _startable(session: Session, name: str) -> list[Started]:
    endpoint = session.get(Endpoint, name)
    if endpoint is None or live_experiment(session, name):
        return []
    drafts = [row for row in drafts_of(session, name, actor=PIPELINE) if row.control == endpoint.champion]
    return [found for row in drafts if (found := _when_ready(session, row))]


def _when_ready(session: Session, row: Experiment) -> Started | None:
    control, treatment = (session.get_one(Variant, one) for one in (row.control, row.treatment))
    if control.state != "ready" or treatment.state != "ready":
        return None
    return Started(row.id, row.endpoint, control.name, treatment.name)
