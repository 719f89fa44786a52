"""Keys: shown once, stored as a hash, revoked for good."""

from __future__ import annotations

import re

import pytest
from espalier_sdk.errors import Refused, SpecError
from espalier_serving.database import Database
from espalier_serving.keys import create_key, has_valid_key, key_id_of, known_keys, list_keys, revoke_key
from espalier_serving.tables import Audit, Key
from sqlalchemy import select

pytestmark = pytest.mark.databases


def test_a_key_has_the_form_and_only_its_hash_is_stored(database: Database) -> None:
    with database.writing() as session:
        made = create_key(session, roles=["infer", "feedback"], actor="test")
    assert re.fullmatch(r"esk_[0-9a-f]{12}_[0-9a-f]{48}", made["key"])
    assert key_id_of(made["key"]) == made["id"]
    assert key_id_of(made["key"] + "\n") is None
    secret = made["key"].split("_")[2]
    with database.reading() as session:
        row = session.get_one(Key, made["id"])
        assert secret not in row.sha256
        assert secret not in str(list_keys(session))
        assert all(secret not in str((entry.old, entry.new)) for entry in session.scalars(select(Audit)))


def test_only_the_very_key_opens(database: Database) -> None:
    with database.writing() as session:
        made = create_key(session, roles=["infer"], actor="test")
    with database.reading() as session:
        known = known_keys(session, [made["id"]])[made["id"]]
    assert known.opened_by(made["key"])
    assert not known.opened_by(made["key"][:-1] + ("0" if made["key"][-1] != "0" else "1"))


def test_a_revoked_key_opens_nothing_and_stays_in_the_list(database: Database) -> None:
    with database.writing() as session:
        made = create_key(session, roles=["admin"], actor="test")
        assert has_valid_key(session)
        revoke_key(session, made["id"], actor="test")
        revoke_key(session, made["id"], actor="test")
        assert not has_valid_key(session)
        assert not known_keys(session, [made["id"]])[made["id"]].opened_by(made["key"])
        assert [row["id"] for row in list_keys(session) if row["revoked_at"]] == [made["id"]]


def test_an_unknown_role_is_refused_with_those_there_are(database: Database) -> None:
    with database.writing() as session, pytest.raises(SpecError, match="infer, feedback, operate, admin"):
        create_key(session, roles=["infer", "root"], actor="test")


def test_a_key_without_a_role_is_refused(database: Database) -> None:
    with database.writing() as session, pytest.raises(SpecError, match="a key needs a role"):
        create_key(session, roles=[], actor="test")


def test_revoking_an_unknown_key_is_refused(database: Database) -> None:
    with database.writing() as session, pytest.raises(Refused, match="there is no key"):
        revoke_key(session, "0" * 12, actor="test")


@pytest.mark.parametrize("text", ["", "esk_", "esk_xyz_1", "Bearer x", "esk_" + "0" * 12 + "_" + "0" * 47])
def test_what_is_no_key_has_no_id(text: str) -> None:
    assert key_id_of(text) is None
