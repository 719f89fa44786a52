"""What is said of an endpoint when it answers."""

from __future__ import annotations

import pytest
from espalier_serving.announcing import described, sentence
from espalier_serving.database import Database
from espalier_serving.drafts import start_drafts
from espalier_serving.proposing import propose
from espalier_serving.tables import Variant
from espalier_serving.testing import model_ref
from sqlalchemy import update

pytestmark = pytest.mark.databases


def proposed(url: str, *names: str, experiment: bool) -> None:
    split = {"weights": [90, 10], "coverage": 0.5, "unit": "user", "control": names[0], "treatment": names[-1]}
    variants = [(name, model_ref("abc"[place]), "echo", {}) for place, name in enumerate(names)]
    given = {"endpoint": "support", "task": "classification", "bootstrap": names[0]}
    propose(url, variants=variants, experiment=split if experiment else None, **given)


def test_champion_and_challenger_are_named_with_their_weights(url: str, database: Database) -> None:
    proposed(url, "full", "tiny", "lora", experiment=True)
    (one,) = described(database)
    assert sentence(one) == (
        "support  champion full (90), challenger lora (10), experiment of 50% of the units not started yet; "
        "also served: tiny"
    )
    with database.writing() as session:
        session.execute(update(Variant).values(state="ready"))
    start_drafts(database, "support", actor="serve")
    (one,) = described(database)
    assert "challenger lora (10), experiment of 50% of the units running" in sentence(one)


def test_without_an_experiment_the_champion_stands_alone(url: str, database: Database) -> None:
    proposed(url, "full", experiment=False)
    assert [sentence(one) for one in described(database)] == ["support  champion full"]
