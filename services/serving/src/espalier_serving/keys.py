"""Clients' keys: making, checking and revoking them; only making one ever shows it."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, get_args

from espalier_sdk.errors import SpecError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from espalier_serving import audit
from espalier_serving.ids import now, short_id
from espalier_serving.refusals import not_found
from espalier_serving.tables import Audit, Key

Role = Literal["infer", "feedback", "operate", "admin"]
CREATED = "key.create"
ROLES: tuple[Role, ...] = get_args(Role)
_KEY = re.compile(r"esk_(?P<id>[0-9a-f]{12})_(?P<secret>[0-9a-f]{48})")


@dataclass(frozen=True, slots=True)
class KnownKey:
    """What the database tells of a key."""

    id: str
    sha256: str
    roles: frozenset[str]
    revoked: bool

    def opened_by(self, key: str) -> bool:
        """Returns whether this is that key, still valid; takes the same time for every wrong one."""
        return hmac.compare_digest(_digest(key), self.sha256) and not self.revoked


def create_key(session: Session, *, roles: Sequence[str], actor: str) -> dict[str, Any]:
    """Makes a key and returns it with its id and roles; raises SpecError for a role that there is not."""
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise SpecError(
            f"there is no role {unknown[0]!r}" if unknown else "a key needs a role",
            field="roles",
            given=list(roles),
            accepted=", ".join(ROLES),
        )
    key_id = short_id()
    key = f"esk_{key_id}_{secrets.token_hex(24)}"
    chosen = [role for role in ROLES if role in roles]
    _add(session, key_id, key, chosen, actor=actor)
    return {"id": key_id, "key": key, "roles": chosen}


def keep_key(session: Session, key: str, *, roles: Sequence[Role], actor: str) -> bool:
    """Makes a key that was made elsewhere valid, as a chart's Secret holds one; returns False where it is known.

    Raises SpecError for a text that is no key. A key that was revoked stays so.
    """
    key_id = key_id_of(key)
    if key_id is None:
        raise SpecError("the key has not the shape of one", accepted="esk_<12 hexadecimal digits>_<48 of them>")
    if session.get(Key, key_id) is not None:
        return False
    _add(session, key_id, key, roles, actor=actor)
    return True


def revoke_key(session: Session, key_id: str, *, actor: str) -> None:
    """Makes a key invalid for good; raises Refused (not_found) for an unknown one."""
    row = session.get(Key, key_id)
    if row is None:
        raise not_found("key", key_id)
    if row.revoked_at is None:
        row.revoked_at = now()
        audit.record(
            session, actor=actor, action="key.revoke", subject=key_id, old={"revoked": False}, new={"revoked": True}
        )


def revoke_keys_of(session: Session, actor: str) -> None:
    """Revokes all keys that an actor has made."""
    made = select(Audit.subject).where(Audit.actor == actor, Audit.action == CREATED)
    for key_id in session.scalars(select(Key.id).where(Key.id.in_(made), Key.revoked_at.is_(None))):
        revoke_key(session, key_id, actor=actor)


def list_keys(session: Session) -> list[dict[str, Any]]:
    """Returns all keys without their secrets, the oldest first."""
    return [
        {
            "id": row.id,
            "roles": row.roles,
            "created_at": row.created_at.isoformat(),
            "revoked_at": row.revoked_at.isoformat() if row.revoked_at else None,
        }
        for row in session.scalars(select(Key).order_by(Key.created_at, Key.id))
    ]


def has_valid_key(session: Session) -> bool:
    """Returns whether any client could ask."""
    return bool(session.scalar(select(func.count()).select_from(Key).where(Key.revoked_at.is_(None))))


def known_keys(session: Session, ids: Iterable[str]) -> dict[str, KnownKey]:
    """Returns what the database tells of some keys, by id."""
    rows = session.scalars(select(Key).where(Key.id.in_(list(ids))))
    return {row.id: KnownKey(row.id, row.sha256, frozenset(row.roles), row.revoked_at is not None) for row in rows}


def key_id_of(key: str) -> str | None:
    """Returns the id in a key, or None where the text is no key."""
    match = _KEY.fullmatch(key)
    return match["id"] if match else None


def _add(session: Session, key_id: str, key: str, roles: Sequence[Role], *, actor: str) -> None:
    session.add(Key(id=key_id, sha256=_digest(key), roles=list(roles), created_at=now(), revoked_at=None))
    audit.record(session, actor=actor, action=CREATED, subject=key_id, new={"roles": list(roles)})


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()
