"""What an earlier commit made, before there was a cluster, is still read: specs, artifacts, the endpoint's database.

`before/` was made by `espalier run spec.yaml` at commit 8baf28a: manifests of all stages, the files of model and
evaluation, the database as SQL. Times, hosts and the unit key were taken out.
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from espalier_pipeline import check, predict
from espalier_runtime.store import Store
from espalier_serving.assignment import unit_hash
from espalier_serving.database import open_database
from espalier_serving.endpoints import describe_endpoint, get_endpoint
from espalier_serving.routing import read_snapshot

BEFORE = Path(__file__).with_name("before")
ANN = "b31ed2cc9b43d9fdf9acda23b01568b5"  # as that commit hashed her: nobody may change arms by an upgrade


@pytest.fixture
def store(tmp_path: Path) -> Store:
    shutil.copytree(BEFORE / "store", tmp_path / "store")
    return Store.open(str(tmp_path / "store"))


def test_its_spec_is_still_one() -> None:
    assert check(BEFORE / "spec.yaml").name == "old"


def test_its_manifests_have_their_digests_and_its_files_their_hashes(store: Store) -> None:
    refs = list(store.refs())
    assert {ref.kind for ref in refs} == {"corpus", "dataset", "prepared", "model", "evaluation"}
    assert all(store.manifest(ref).ref() == ref for ref in refs)
    for kind in ("model", "evaluation"):
        assert [store.verify(ref) for ref in store.refs(kind)] == [None] * len(list(store.refs(kind)))


def test_its_model_answers_as_it_did(store: Store, tmp_path: Path) -> None:
    (ref,) = store.refs("model")
    asked = tmp_path / "asked.csv"
    asked.write_text("text\nrose spade seeds soil\ninvoice refund card bank\n")
    answers = list(predict(str(ref), asked, store=store.uri))
    assert [answer["prediction"] for answer in answers] == ["garden", "money"]


def test_its_endpoint_and_units_are_those_that_they_were(tmp_path: Path, store: Store) -> None:
    with sqlite3.connect(tmp_path / "endpoint.db") as connection:
        connection.executescript((BEFORE / "endpoint.sql").read_text(encoding="utf-8"))
    database = open_database(f"sqlite:///{tmp_path / 'endpoint.db'}")
    with database.reading() as session:
        described = describe_endpoint(session, get_endpoint(session, "mails"))
        snapshot = read_snapshot(session)
    (ref,) = store.refs("model")
    assert described["champion"] == "tiny"
    assert [one["model"] for one in described["variants"]] == [str(ref)]
    assert snapshot.champions() == {one["id"] for one in described["variants"]}
    assert database.unit_key == bytes(32)
    assert unit_hash(database.unit_key, "user", "ann") == ANN
    database.close()
