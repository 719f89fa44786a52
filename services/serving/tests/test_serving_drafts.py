"""Starting what pipelines drafted: one endpoint's, one at a time, and told once it is committed."""

from __future__ import annotations

import pytest
from espalier_serving import drafts
from espalier_serving.database import Database
from espalier_serving.drafts import start_drafts
from espalier_serving.endpoints import get_endpoint, variants_of
from espalier_serving.experiments import create_experiment, list_experiments
from espalier_serving.proposing import propose
from espalier_serving.tables import Variant
from espalier_serving.testing import model_ref
from sqlalchemy import update

pytestmark = pytest.mark.databases

SPLIT = {"weights": [50, 50], "coverage": 1.0, "unit": "user", "control": "full"}


def proposed(url: str, treatment: str = "lora", endpoint: str = "support") -> str:
    letters = {"full": "a", "lora": "b", "tiny": "c"}
    variants = [(name, model_ref(letters[name]), "echo", {}) for name in ("full", treatment)]
    given = {"endpoint": endpoint, "task": "classification", "bootstrap": "full"}
    return str(propose(url, variants=variants, experiment={**SPLIT, "treatment": treatment}, **given)["experiment"])


def made_by_an_operator(database: Database, treatment: str) -> None:
    with database.writing() as session:
        endpoint = get_endpoint(session, "support")
        variant = next(one for one in variants_of(session, "support") if one.name == treatment)
        create_experiment(
            session, endpoint, treatment=variant, weights=[50, 50], coverage=1.0, unit="user", actor="key"
        )


def all_ready(database: Database) -> None:
    with database.writing() as session:
        session.execute(update(Variant).values(state="ready"))


def states(database: Database) -> list[tuple[str, str | None]]:
    with database.reading() as session:
        return [(row.state, row.verdict) for row in list_experiments(session)]


def test_of_two_proposals_the_newer_one_runs_and_the_older_one_is_superseded(url: str, database: Database) -> None:
    proposed(url, "lora")
    newer = proposed(url, "tiny")
    all_ready(database)
    assert [one.id for one in start_drafts(database, "support", actor="serve")] == [newer]
    assert states(database) == [("decided", "superseded"), ("running", None)]
    assert start_drafts(database, "support", actor="serve") == []


def test_a_superseded_proposal_that_comes_again_is_drafted_again(url: str, database: Database) -> None:
    first = proposed(url, "lora")
    proposed(url, "tiny")
    assert proposed(url, "lora") != first
    assert [state for state, _ in states(database)] == ["decided", "decided", "draft"]


def test_a_draft_that_is_refused_leaves_the_one_that_was_started(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = proposed(url)
    made_by_an_operator(database, "lora")
    all_ready(database)
    monkeypatch.setattr(drafts, "drafts_of", lambda session, name, actor: list_experiments(session, name))
    assert [one.id for one in start_drafts(database, "support", actor="serve")] == [first]
    assert states(database) == [("running", None), ("draft", None)]


def test_drafts_of_other_endpoints_and_of_operators_are_left_alone(url: str, database: Database) -> None:
    proposed(url, endpoint="sales")
    mine = proposed(url)
    proposed(url, "tiny")
    made_by_an_operator(database, "lora")
    with database.writing() as session:  # as if the operator's were the only one
        session.execute(update(Variant).where(Variant.name == "tiny").values(state="failed"))
        session.execute(update(Variant).where(Variant.name != "tiny").values(state="ready"))
    assert start_drafts(database, "support", actor="serve") == []
    assert mine
    assert [state for state, _ in states(database)] == ["draft", "decided", "draft", "draft"]


def test_a_draft_waits_for_both_variants(url: str, database: Database) -> None:
    proposed(url)
    with database.writing() as session:
        session.execute(update(Variant).where(Variant.name == "full").values(state="ready"))
    assert start_drafts(database, "support", actor="serve") == []
    all_ready(database)
    (started,) = start_drafts(database, "support", actor="serve")
    assert (started.control, started.treatment) == ("full", "lora")
