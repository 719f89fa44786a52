"""Experiments: their states, and that one endpoint has at most one that is live."""

from __future__ import annotations

import pytest
from espalier_sdk.errors import Refused
from espalier_serving.database import Database
from espalier_serving.endpoints import get_endpoint, get_variant, live_experiment, retire_variant
from espalier_serving.experiments import create_experiment, get_experiment, start_experiment, stop_experiment
from espalier_serving.routing import read_snapshot
from espalier_serving.tables import Experiment, Variant
from espalier_serving.testing import ready_endpoint
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

pytestmark = pytest.mark.databases


def draft(database: Database) -> str:
    with database.writing() as session:
        endpoint = get_endpoint(session, "support")
        row = create_experiment(
            session,
            endpoint,
            treatment=get_variant(session, "support", "b"),
            weights=[50, 50],
            coverage=0.5,
            unit="user",
            actor="test",
        )
        return row.id


def test_a_draft_runs_and_is_decided_and_routing_follows(url: str, database: Database) -> None:
    ids = ready_endpoint(database, url, running=False)
    with database.writing() as session:
        revision = get_endpoint(session, "support").revision
        start_experiment(session, ids["experiment"], if_match=f'"{revision}"', actor="test")
        assert get_endpoint(session, "support").revision == revision + 1
    with database.reading() as session:
        routings = read_snapshot(session).revisions["support"]
        assert [one.experiment is None for one in routings] == [True, False]
    with database.writing() as session:
        stop_experiment(session, ids["experiment"], if_match="*", actor="test")
        assert get_experiment(session, ids["experiment"]).state == "decided"
        assert live_experiment(session, "support") is None


def test_a_write_on_an_older_revision_is_refused(url: str, database: Database) -> None:
    ids = ready_endpoint(database, url, running=False)
    for given in ("1", None):
        with database.writing() as session, pytest.raises(Refused) as caught:
            start_experiment(session, ids["experiment"], if_match=given, actor="test")
        assert caught.value.problems[0].code == "stale_revision"


def test_a_second_experiment_cannot_start_beside_the_first(url: str, database: Database) -> None:
    ready_endpoint(database, url)
    second = draft(database)
    with database.writing() as session, pytest.raises(Refused, match="is running"):
        start_experiment(session, second, if_match="*", actor="test")


@pytest.mark.parametrize("state", ["running", "paused"])
def test_the_database_itself_refuses_two_live_experiments(url: str, database: Database, state: str) -> None:
    ready_endpoint(database, url)
    second = draft(database)
    with pytest.raises(IntegrityError), database.writing() as session:
        session.execute(update(Experiment).where(Experiment.id == second).values(state=state))


def test_each_experiment_has_a_salt_of_its_own(url: str, database: Database) -> None:
    ids = ready_endpoint(database, url)
    second = draft(database)
    with database.reading() as session:
        assert get_experiment(session, ids["experiment"]).salt != get_experiment(session, second).salt


def test_a_challenger_that_is_not_ready_cannot_be_tried(url: str, database: Database) -> None:
    ids = ready_endpoint(database, url, running=False)
    with database.writing() as session:
        session.execute(update(Variant).where(Variant.name == "b").values(state="failed", error="no memory"))
    with database.writing() as session, pytest.raises(Refused, match="support/b is failed: no memory"):
        start_experiment(session, ids["experiment"], if_match="*", actor="test")


def test_a_decided_experiment_neither_starts_nor_stops(url: str, database: Database) -> None:
    ids = ready_endpoint(database, url)
    with database.writing() as session:
        stop_experiment(session, ids["experiment"], if_match="*", actor="test")
    with database.writing() as session:
        with pytest.raises(Refused, match="is decided"):
            stop_experiment(session, ids["experiment"], if_match="*", actor="test")
        with pytest.raises(Refused, match="only a draft"):
            start_experiment(session, ids["experiment"], if_match="*", actor="test")


def test_a_variant_in_a_live_experiment_cannot_be_retired(url: str, database: Database) -> None:
    ready_endpoint(database, url)
    with database.writing() as session, pytest.raises(Refused, match="is in experiment"):
        retire_variant(session, get_endpoint(session, "support"), "b", if_match="*", actor="test")


def test_the_champion_cannot_be_its_own_challenger(url: str, database: Database) -> None:
    ready_endpoint(database, url, running=False)
    with database.writing() as session, pytest.raises(Refused, match="is the champion"):
        create_experiment(
            session,
            get_endpoint(session, "support"),
            treatment=get_variant(session, "support", "a"),
            weights=[50, 50],
            coverage=1.0,
            unit="user",
            actor="test",
        )
