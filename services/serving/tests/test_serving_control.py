"""Control brings applications to what the rows say; here over applications that are kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from espalier_serving.applications import Status, VariantSpec
from espalier_serving.control import reconcile
from espalier_serving.database import Database
from espalier_serving.endpoints import get_endpoint, retire_variant
from espalier_serving.experiments import stop_experiment
from espalier_serving.ids import now
from espalier_serving.tables import Audit, Revision, Variant
from espalier_serving.testing import ready_endpoint
from sqlalchemy import select, update

pytestmark = pytest.mark.databases


class MemoryApplications:
    """Applications by variant id, which a test moves on by hand."""

    def __init__(self) -> None:
        self.found: dict[str, Status] = {}
        self.started: list[str] = []

    def statuses(self) -> dict[str, Status]:
        return dict(self.found)

    def start(self, variants: Sequence[VariantSpec]) -> None:
        self.started += [one.id for one in variants]
        self.found |= {one.id: Status("starting") for one in variants}

    def delete(self, variant: str) -> None:
        self.found[variant] = Status("stopping")


def states(database: Database) -> dict[str, tuple[str, str | None]]:
    with database.reading() as session:
        return {row.name: (row.state, row.error) for row in session.scalars(select(Variant))}


def proposed(url: str, database: Database) -> dict[str, str]:
    ids = ready_endpoint(database, url, running=False)
    with database.writing() as session:
        session.execute(update(Variant).values(state="proposed"))
    return ids


def test_a_proposed_variant_is_started_loads_and_is_ready(url: str, database: Database) -> None:
    ids, applications = proposed(url, database), MemoryApplications()
    reconcile(database, applications)
    assert sorted(applications.started) == sorted([ids["a"], ids["b"]])
    assert states(database)["a"] == ("loading", None)
    applications.found[ids["a"]] = Status("running")
    reconcile(database, applications)
    assert states(database) == {"a": ("ready", None), "b": ("loading", None)}


def test_when_nothing_changes_nothing_is_written_or_started(url: str, database: Database) -> None:
    ids, applications = proposed(url, database), MemoryApplications()
    applications.found = {ids["a"]: Status("running"), ids["b"]: Status("running")}
    reconcile(database, applications)
    with database.reading() as session:
        before = len(list(session.scalars(select(Audit))))
    reconcile(database, applications)
    with database.reading() as session:
        assert len(list(session.scalars(select(Audit)))) == before
    assert applications.started == []


def test_a_variant_that_cannot_be_started_fails_with_the_reason_and_its_application_ends(
    url: str, database: Database
) -> None:
    ids, applications = proposed(url, database), MemoryApplications()
    reconcile(database, applications)
    applications.started.clear()
    applications.found = {ids["a"]: Status("running"), ids["b"]: Status("failed", "DataError: a file is damaged")}
    reconcile(database, applications)
    assert states(database)["b"] == ("failed", "DataError: a file is damaged")
    reconcile(database, applications)
    assert applications.found[ids["b"]] == Status("stopping")
    del applications.found[ids["b"]]
    reconcile(database, applications)
    assert applications.started == []


def test_a_variant_that_is_proposed_again_is_tried_again_whatever_its_old_application_says(
    url: str, database: Database
) -> None:
    ids, applications = proposed(url, database), MemoryApplications()
    applications.found = {ids["a"]: Status("running"), ids["b"]: Status("failed", "of the last try")}
    reconcile(database, applications)
    assert applications.started == [ids["b"]]
    assert states(database)["b"] == ("loading", None)
    applications.found[ids["b"]] = Status("running")
    reconcile(database, applications)
    assert states(database)["b"] == ("ready", None)


def test_after_a_lost_head_the_applications_are_built_again_from_the_rows(url: str, database: Database) -> None:
    ids, applications = ready_endpoint(database, url), MemoryApplications()
    reconcile(database, applications)
    assert sorted(applications.started) == sorted([ids["a"], ids["b"]])


def test_a_ready_variant_whose_replica_restarts_stays_ready(url: str, database: Database) -> None:
    ids, applications = ready_endpoint(database, url), MemoryApplications()
    applications.found = {ids["a"]: Status("starting"), ids["b"]: Status("running")}
    reconcile(database, applications)
    assert states(database)["a"] == ("ready", None)


def test_a_retired_variant_drains_until_no_gateway_can_name_it(url: str, database: Database) -> None:
    ids, applications = ready_endpoint(database, url), MemoryApplications()
    applications.found = {ids["a"]: Status("running"), ids["b"]: Status("running")}
    with database.writing() as session:
        stop_experiment(session, ids["experiment"], if_match="*", actor="test")
        retire_variant(session, get_endpoint(session, "support"), "b", if_match="*", actor="test")
    reconcile(database, applications)
    assert applications.found[ids["b"]] == Status("running")
    with database.writing() as session:
        session.execute(update(Revision).values(active_at=now() - timedelta(seconds=60)))
    reconcile(database, applications)
    assert applications.found[ids["b"]] == Status("stopping")
    assert states(database)["b"] == ("retired", None)


def test_a_variant_that_failed_elsewhere_goes_on_where_it_runs(url: str, database: Database) -> None:
    ids, applications = ready_endpoint(database, url), MemoryApplications()
    applications.found = {ids["a"]: Status("running"), ids["b"]: Status("running")}
    with database.writing() as session:
        session.execute(update(Variant).where(Variant.name == "a").values(state="failed", error="in another cluster"))
    reconcile(database, applications)
    assert applications.found[ids["a"]] == Status("running")


def test_an_application_without_a_row_ends(url: str, database: Database) -> None:
    ids, applications = ready_endpoint(database, url), MemoryApplications()
    applications.found = {one: Status("running") for one in (ids["a"], ids["b"], "of another database")}
    reconcile(database, applications)
    assert applications.found["of another database"] == Status("stopping")
