"""Proposing models: what changes, what does not, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from espalier_sdk.errors import Refused, SpecError
from espalier_serving import audit
from espalier_serving.database import Database
from espalier_serving.endpoints import begin_loading, describe_endpoint, get_endpoint, retire_variant
from espalier_serving.experiments import start_experiment, stop_experiment
from espalier_serving.proposing import propose
from espalier_serving.tables import Audit, Revision, Variant
from espalier_serving.testing import model_ref
from sqlalchemy import func, select, update

pytestmark = pytest.mark.databases

SPLIT = {"weights": [50, 50], "coverage": 1.0, "unit": "user", "control": "full", "treatment": "lora"}


def proposed(
    url: str, *models: tuple[str, str], experiment: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    given = {"endpoint": "support", "task": "classification", "bootstrap": models[0][0], **more}
    variants = [(name, model_ref(letter), "transformers", {}) for name, letter in models]
    return propose(url, variants=variants, experiment=experiment, **given)


def counts(database: Database) -> tuple[int, int, int]:
    with database.reading() as session:
        found = [session.scalar(select(func.count()).select_from(table)) for table in (Variant, Revision, Audit)]
    return found[0] or 0, found[1] or 0, found[2] or 0


def run_experiment(database: Database, experiment: str) -> None:
    with database.writing() as session:
        session.execute(update(Variant).values(state="ready"))
        start_experiment(session, experiment, if_match="*", actor="test")


def test_the_first_proposal_makes_endpoint_champion_challenger_and_draft(url: str, database: Database) -> None:
    made = proposed(url, ("full", "a"), ("lora", "b"), experiment=SPLIT)
    assert made["champion"] == "full"
    assert made["variants"] == {"full": "full", "lora": "lora"}
    assert made["changed"]
    with database.reading() as session:
        row = describe_endpoint(session, get_endpoint(session, "support"))
    assert [one["state"] for one in row["variants"]] == ["proposed", "proposed"]
    assert row["revision"] == made["revision"]
    assert row["experiment"] is None


def test_the_same_proposal_again_changes_nothing(url: str, database: Database) -> None:
    first = proposed(url, ("full", "a"), ("lora", "b"), experiment=SPLIT)
    before = counts(database)
    again = proposed(url, ("full", "a"), ("lora", "b"), experiment=SPLIT)
    assert counts(database) == before
    assert again == {**first, "changed": False}


def test_the_live_champion_stays_whatever_bootstrap_says(url: str) -> None:
    proposed(url, ("full", "a"))
    assert proposed(url, ("lora", "b"))["champion"] == "full"


def test_another_model_with_a_name_that_is_taken_gets_a_name_of_its_own(url: str) -> None:
    proposed(url, ("full", "a"))
    assert proposed(url, ("full", "b"))["variants"] == {"full": "full-bbbbbbbb"}


def test_the_control_is_the_live_champion_and_the_treatment_another(url: str, database: Database) -> None:
    proposed(url, ("lora", "b"))
    made = proposed(url, ("full", "a"), ("lora", "b"), experiment=SPLIT)
    run_experiment(database, made["experiment"])
    with database.reading() as session:
        routing = session.get_one(Revision, ("support", made["revision"] + 1)).routing
    names = {variant: name for name, variant in routing["variants"].items()}
    assert names[routing["experiment"]["control"]] == "lora"
    assert names[routing["experiment"]["treatment"]] == "full"


def test_while_an_experiment_runs_another_model_is_refused(url: str, database: Database) -> None:
    made = proposed(url, ("full", "a"), ("lora", "b"), experiment=SPLIT)
    run_experiment(database, made["experiment"])
    before = counts(database)
    with pytest.raises(Refused, match="is running") as caught:
        proposed(url, ("scratch", "c"))
    assert caught.value.exit_code == 7
    assert counts(database) == before


def test_while_an_experiment_runs_the_same_proposal_still_changes_nothing(url: str, database: Database) -> None:
    made = proposed(url, ("full", "a"), ("lora", "b"), experiment=SPLIT)
    run_experiment(database, made["experiment"])
    again = proposed(url, ("full", "a"), ("lora", "b"), experiment=SPLIT)
    assert (again["experiment"], again["changed"]) == (made["experiment"], False)


def test_an_experiment_that_was_stopped_is_not_made_again(url: str, database: Database) -> None:
    made = proposed(url, ("full", "a"), ("lora", "b"), experiment=SPLIT)
    run_experiment(database, made["experiment"])
    with database.writing() as session:
        stop_experiment(session, made["experiment"], if_match="*", actor="test")
    again = proposed(url, ("full", "a"), ("lora", "b"), experiment=SPLIT)
    assert (again["experiment"], again["changed"]) == (made["experiment"], False)


@pytest.mark.parametrize("state", ["failed", "retired"])
def test_a_model_that_failed_or_was_retired_is_proposed_again(url: str, database: Database, state: str) -> None:
    proposed(url, ("full", "a"), ("lora", "b"))
    with database.writing() as session:
        session.execute(update(Variant).where(Variant.name == "lora").values(state=state, error="why"))
    made = proposed(url, ("full", "a"), ("lora", "b"))
    assert made["changed"]
    with database.reading() as session:
        row = session.scalars(select(Variant).where(Variant.name == "lora")).one()
    assert (row.state, row.error) == ("proposed", None)


def failed(database: Database, name: str) -> None:
    with database.writing() as session:
        session.execute(update(Variant).where(Variant.name == name).values(state="failed", error="why"))


def test_a_champion_that_failed_gives_way_to_the_next_bootstrap(url: str, database: Database) -> None:
    proposed(url, ("full", "a"))
    failed(database, "full")
    assert proposed(url, ("lora", "b"))["champion"] == "lora"


def test_a_champion_that_failed_and_is_proposed_again_stays(url: str, database: Database) -> None:
    proposed(url, ("full", "a"), ("lora", "b"))
    failed(database, "full")
    assert proposed(url, ("full", "a"))["champion"] == "full"
    assert proposed(url, ("lora", "b"))["champion"] == "full"


def proposed_with(url: str, engine: str, config: dict[str, Any]) -> None:
    variants = [("full", model_ref("a"), engine, config)]
    propose(url, endpoint="support", task="classification", variants=variants, bootstrap="full")


@pytest.mark.parametrize("ready_before", [False, True])
def test_only_a_variant_that_was_never_ready_takes_another_engine(
    url: str, database: Database, ready_before: bool
) -> None:
    proposed_with(url, "transformers", {"num_cpus": 4})
    if ready_before:
        with database.writing() as session:
            audit.record(session, actor="control", action="variant.ready", subject="support/full")
    failed(database, "full")
    proposed_with(url, "echo", {"num_cpus": 1})
    with database.reading() as session:
        row = session.scalars(select(Variant)).one()
    kept = ("transformers", 4.0) if ready_before else ("echo", 1.0)
    assert (row.engine["name"], row.config["num_cpus"]) == kept


def test_a_start_tries_what_failed_again(url: str, database: Database) -> None:
    proposed(url, ("full", "a"), ("lora", "b"))
    failed(database, "full")
    with database.writing() as session:
        begin_loading(session, actor="serve")
    with database.reading() as session:
        assert [(row.state, row.error) for row in session.scalars(select(Variant))] == [("loading", None)] * 2


def test_an_endpoint_of_another_task_is_refused(url: str) -> None:
    proposed(url, ("full", "a"))
    with pytest.raises(Refused, match="answers classification, not regression"):
        proposed(url, ("full", "a"), task="regression")


def test_a_bootstrap_that_is_not_proposed_is_refused(url: str) -> None:
    with pytest.raises(SpecError, match="bootstrap names no variant"):
        proposed(url, ("full", "a"), bootstrap="lora")


@pytest.mark.parametrize("weights", [[50, 51], [100, 0], [50], [0.5, 0.5]])
def test_weights_that_are_no_split_are_refused_and_leave_nothing(
    url: str, database: Database, weights: list[float]
) -> None:
    with pytest.raises(SpecError, match="weights"):
        proposed(url, ("full", "a"), ("lora", "b"), experiment={**SPLIT, "weights": weights})
    assert counts(database) == (0, 0, 0)


def test_a_name_that_cannot_stand_in_a_url_is_refused(url: str) -> None:
    with pytest.raises(SpecError, match="cannot name a variant"):
        proposed(url, ("Full/1", "a"))


def test_a_reference_that_is_none_is_refused(url: str) -> None:
    variants: list[tuple[str, str, str, dict[str, Any]]] = [("full", "model/full@123", "transformers", {})]
    with pytest.raises(SpecError, match="is not a reference"):
        propose(url, endpoint="support", task="classification", variants=variants, bootstrap="full")


def test_a_variant_config_with_an_unknown_key_is_refused(url: str) -> None:
    variants: list[tuple[str, str, str, dict[str, Any]]] = [("full", model_ref("a"), "transformers", {"cpus": 1})]
    with pytest.raises(SpecError, match=r"config\.cpus"):
        propose(url, endpoint="support", task="classification", variants=variants, bootstrap="full")


def test_proposing_imports_no_ray() -> None:
    import subprocess
    import sys

    code = "import sys, espalier_serving.proposing; sys.exit('ray' in sys.modules or 'fastapi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_the_champion_cannot_be_retired(url: str, database: Database) -> None:
    proposed(url, ("full", "a"))
    with database.writing() as session, pytest.raises(Refused, match="is the champion"):
        retire_variant(session, get_endpoint(session, "support"), "full", if_match="*", actor="test")
