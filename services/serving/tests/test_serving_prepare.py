"""A fresh installation: the schema, the administrator's key, the demo; all of it again without harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from espalier_runtime.store import Store
from espalier_sdk.errors import DataError, SpecError
from espalier_serving.cluster import application
from espalier_serving.database import Database
from espalier_serving.endpoints import describe_endpoint, get_endpoint
from espalier_serving.keys import keep_key, known_keys, revoke_key
from espalier_serving.prepare import KEY_VARIABLE, main, propose_demo, wait_for_database

pytestmark = pytest.mark.databases

KEY = "esk_0123456789ab_" + "c" * 48


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    attempt = Store.open(str(tmp_path / "demo" / "store")).begin("ef" * 32)
    (attempt.folder / "model.safetensors").write_bytes(b"weights")
    ref = attempt.publish(kind="model", name="scratch").ref()
    variants: list[Any] = [["scratch", str(ref), "transformers", {}]]
    proposal = {"endpoint": "demo", "task": "classification", "variants": variants, "bootstrap": "scratch"}
    (tmp_path / "demo" / "proposal.json").write_text(json.dumps(proposal))
    return tmp_path / "demo"


def test_a_fresh_installation_has_its_key_and_its_demo_also_when_prepared_twice(
    url: str, database: Database, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    store = str(tmp_path / "store")
    monkeypatch.setattr("sys.argv", ["prepare", "--database", url, "--store", store, "--demo", str(demo)])
    assert (main(), main()) == (0, 0)
    with database.reading() as session:
        known = known_keys(session, ["0123456789ab"])["0123456789ab"]
        described = describe_endpoint(session, get_endpoint(session, "demo"))
    assert known.opened_by(KEY)
    assert known.roles == {"infer", "feedback", "operate", "admin"}
    assert described["champion"] == "scratch"
    assert len(described["variants"]) == 1
    assert len(list(Store.look(store).refs("model"))) == 1


def test_a_kept_key_that_was_revoked_stays_so(database: Database) -> None:
    with database.writing() as session:
        assert keep_key(session, KEY, roles=("infer",), actor="test")
        revoke_key(session, "0123456789ab", actor="test")
        assert not keep_key(session, KEY, roles=("infer",), actor="test")
        assert not known_keys(session, ["0123456789ab"])["0123456789ab"].opened_by(KEY)


def test_what_is_no_key_is_refused(database: Database) -> None:
    with database.writing() as session, pytest.raises(SpecError, match="shape"):
        keep_key(session, "secret", roles=("infer",), actor="test")


def test_an_image_without_a_demo_is_told(url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no demo in this folder"):
        propose_demo(tmp_path, database=url, store=str(tmp_path / "store"))


def test_a_database_that_never_comes_is_an_error_in_the_end() -> None:
    with pytest.raises(DataError, match="cannot be opened"):
        wait_for_database("postgresql+psycopg://me@127.0.0.1:1/none", seconds=0)


def test_an_application_needs_its_surroundings(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.delenv("ESPALIER_STORE", raising=False)
    monkeypatch.setenv("ESPALIER_DATABASE_URL", url)
    with pytest.raises(SpecError, match="ESPALIER_STORE is not set"):
        application({})
    monkeypatch.setenv("ESPALIER_STORE", "s3://models")
    with pytest.raises(SpecError, match="greater than or equal to 1"):
        application({"gateways": 0})
    if url.startswith("sqlite"):
        with pytest.raises(SpecError, match="SQLite allows one gateway"):
            application({"gateways": 2})
    else:
        assert application({"gateways": 2}) is not None
