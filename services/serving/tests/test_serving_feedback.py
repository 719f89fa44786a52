"""Feedback: joined to exposures, kept once, and late when the window has closed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from espalier_serving.assignment import unit_hash
from espalier_serving.database import Database
from espalier_serving.exposures import ExposureRow, write_rows
from espalier_serving.feedback import Item, record_feedback
from espalier_serving.ids import now
from espalier_serving.results import results_of
from espalier_serving.tables import Experiment, Outcome, Unit
from espalier_serving.testing import ready_endpoint
from sqlalchemy import event, select, update

pytestmark = pytest.mark.databases


@pytest.fixture
def experiment(url: str, database: Database) -> str:
    """An experiment in which `ann` (request r1, variant a) and `bob` (r2, b) were exposed; r3 was not enrolled."""
    ids = ready_endpoint(database, url)

    def row(request_id: str, unit: str | None, variant: str) -> ExposureRow:
        hashed = unit_hash(database.unit_key, "user", unit) if unit else None
        running = ids["experiment"] if unit else None
        return ExposureRow(
            request_id, now(), "support", 1, ids[variant], "enrolled", "k", running, hashed, window_seconds=3600
        )

    with database.engine.execution_options(espalier_write=True).begin() as connection:
        write_rows(connection, [row("r1", "ann", "a"), row("r2", "bob", "b"), row("r3", None, "a")])
    return ids["experiment"]


def outcomes(database: Database) -> list[Outcome]:
    with database.reading() as session:
        return list(session.scalars(select(Outcome).order_by(Outcome.id)))


def test_an_outcome_of_a_request_finds_experiment_and_unit(database: Database, experiment: str) -> None:
    assert record_feedback(database, [Item("solved", 1.0, request_id="r1")], key_id="k") == ["recorded"]
    (row,) = outcomes(database)
    assert (row.experiment, row.value, row.late) == (experiment, 1.0, False)
    assert row.unit_hash == unit_hash(database.unit_key, "user", "ann")


def test_an_outcome_of_a_unit_needs_the_unit_in_that_experiment(database: Database, experiment: str) -> None:
    items = [
        Item("solved", 1.0, unit="bob", experiment=experiment),
        Item("solved", 1.0, unit="cid", experiment=experiment),
        Item("solved", 1.0, unit="bob", experiment="another"),
    ]
    assert record_feedback(database, items, key_id="k") == ["recorded", "unknown", "unknown"]


def test_a_request_that_was_not_enrolled_is_recorded_without_experiment(database: Database, experiment: str) -> None:
    assert record_feedback(database, [Item("solved", 0.0, request_id="r3")], key_id="k") == ["recorded"]
    assert outcomes(database)[0].experiment is None


def test_an_unknown_request_is_unknown_and_stores_nothing(database: Database, experiment: str) -> None:
    assert record_feedback(database, [Item("solved", 1.0, request_id="r9")], key_id="k") == ["unknown"]
    assert outcomes(database) == []


def test_the_same_key_with_the_same_value_is_a_duplicate_with_another_a_conflict(
    database: Database, experiment: str
) -> None:
    def item(value: float) -> Item:
        return Item("solved", value, request_id="r1", key="i1")

    assert record_feedback(database, [item(1.0), item(1.0), item(0.0)], key_id="k") == [
        "recorded",
        "duplicate",
        "conflict",
    ]
    assert record_feedback(database, [item(1.0), item(0.0)], key_id="k") == ["duplicate", "conflict"]
    assert record_feedback(database, [item(0.0)], key_id="another client") == ["recorded"]
    assert len(outcomes(database)) == 2


def test_an_outcome_after_the_window_has_closed_is_stored_as_late(database: Database, experiment: str) -> None:
    with database.writing() as session:
        session.execute(update(Unit).values(closes_at=now() - timedelta(seconds=1)))
    assert record_feedback(database, [Item("solved", 1.0, request_id="r1")], key_id="k") == ["late"]
    assert outcomes(database)[0].late


def test_a_later_outcome_of_a_request_supersedes_the_earlier_one(database: Database, experiment: str) -> None:
    items = [Item("solved", 0.0, request_id="r1", key="i1"), Item("solved", 1.0, request_id="r1", key="i2")]
    assert record_feedback(database, items, key_id="k") == ["recorded", "recorded"]
    first, second = outcomes(database)
    assert second.supersedes == first.id
    with database.reading() as session:
        arms = results_of(session, session.get_one(Experiment, experiment))["arms"]
    assert arms["control"]["metrics"] == {"solved": {"units": 1, "mean": 1.0}}


def test_results_weigh_units_not_outcomes_and_leave_out_late_and_crossed(database: Database, experiment: str) -> None:
    ann = [Item("clicks", value, unit="ann", experiment=experiment) for value in (0.0, 0.0, 3.0)]
    record_feedback(database, [*ann, Item("clicks", 5.0, unit="bob", experiment=experiment)], key_id="k")
    with database.writing() as session:
        bob = unit_hash(database.unit_key, "user", "bob")
        session.execute(update(Unit).where(Unit.unit_hash == bob).values(crossed=True))
    with database.reading() as session:
        arms = results_of(session, session.get_one(Experiment, experiment))["arms"]
    assert arms["control"]["metrics"] == {"clicks": {"units": 1, "mean": 1.0}}
    assert arms["treatment"]["metrics"] == {}
    assert (arms["treatment"]["units"], arms["treatment"]["crossed"]) == (1, 1)
    assert (arms["control"]["requests"], arms["control"]["answered"]) == (1, 0)


def test_a_thousand_outcomes_take_some_statements_a_hundred(database: Database, experiment: str) -> None:
    items = [Item("solved", float(number % 2), request_id="r1", key=f"i{number}") for number in range(1000)]
    statements = counted(database)
    assert record_feedback(database, items, key_id="k") == ["recorded"] * 1000
    assert len(statements) <= 10 * 8, "a statement for each outcome would be a thousand"


def test_with_an_endpoint_only_its_own_outcomes_are_known(database: Database, experiment: str) -> None:
    items = [Item("solved", 1.0, request_id="r1"), Item("solved", 1.0, unit="bob", experiment=experiment)]
    assert record_feedback(database, items, key_id="k", endpoint="sales") == ["unknown", "unknown"]
    assert record_feedback(database, items, key_id="k", endpoint="support") == ["recorded", "recorded"]


def test_a_late_outcome_leaves_the_one_that_came_in_time(database: Database, experiment: str) -> None:
    record_feedback(database, [Item("solved", 1.0, request_id="r1")], key_id="k")
    with database.writing() as session:
        session.execute(update(Unit).values(closes_at=now() - timedelta(seconds=1)))
    assert record_feedback(database, [Item("solved", 0.0, request_id="r1")], key_id="k") == ["late"]
    assert outcomes(database)[1].supersedes is None
    with database.reading() as session:
        arms = results_of(session, session.get_one(Experiment, experiment))["arms"]
    assert arms["control"]["metrics"] == {"solved": {"units": 1, "mean": 1.0}}


def test_of_two_outcomes_that_superseded_the_same_one_the_newer_counts(database: Database, experiment: str) -> None:
    items = [Item("solved", value, request_id="r1") for value in (0.0, 0.0, 1.0)]
    record_feedback(database, items, key_id="k")
    with database.writing() as session:  # as two gateways at one moment would leave it
        session.execute(update(Outcome).values(supersedes=None))
    with database.reading() as session:
        arms = results_of(session, session.get_one(Experiment, experiment))["arms"]
    assert arms["control"]["metrics"] == {"solved": {"units": 1, "mean": 1.0}}


def test_bulk_feedback_reads_nothing_while_it_holds_the_write_lock(database: Database, experiment: str) -> None:
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda _c, _d, text, *_: statements.append(text.split()[0]))
    event.listen(
        database.engine,
        "begin",
        lambda connection: statements.append(
            "WRITE" if connection.get_execution_options().get("espalier_write") else "READ"
        ),
    )
    items = [Item("solved", 1.0, request_id="r1", key=f"i{number}") for number in range(250)]
    assert record_feedback(database, items, key_id="k") == ["recorded"] * 250
    after = [statements[place + 1] for place, one in enumerate(statements) if one == "WRITE"]
    assert after == ["BEGIN"] * 3 or after == ["INSERT"] * 3
    assert statements.count("INSERT") == 3


def counted(database: Database) -> list[str]:
    """Returns a list to which each statement is added from now on."""
    found: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda _c, _cursor, text, *_: found.append(text))
    return found


def test_units_are_found_by_their_primary_key(database: Database, experiment: str) -> None:
    if not database.single_writer:
        pytest.skip("Postgres reads a table of one page whole: its plan tells nothing here")
    queries: list[tuple[str, object]] = []
    event.listen(
        database.engine, "before_cursor_execute", lambda _c, _d, text, values, *_: queries.append((text, values))
    )
    record_feedback(database, [Item("solved", 1.0, request_id="r1")], key_id="k")
    (query,) = [one for one in queries if "FROM units" in one[0]]
    with database.engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query[0]}", query[1]).fetchall()
    assert any("SEARCH units" in str(row) for row in plan), plan


def test_results_of_many_outcomes_are_counted_by_the_database(database: Database, experiment: str) -> None:
    for start in range(0, 2_000, 1000):
        items = [Item("solved", float(number % 2), request_id="r1") for number in range(start, start + 1000)]
        record_feedback(database, items, key_id="k")
    statements = counted(database)
    with database.reading() as session:
        arms = results_of(session, session.get_one(Experiment, experiment))["arms"]
    aggregates = [text for text in statements if "outcomes" in text]
    assert len(aggregates) == 1
    assert "avg" in aggregates[0].lower() or "sum" in aggregates[0].lower()
    assert arms["control"]["metrics"] == {"solved": {"units": 1, "mean": 1.0}}
