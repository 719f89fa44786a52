"""The audit log: one row for each change, with who made it, the value before and the value after."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from espalier_serving.ids import now
from espalier_serving.tables import Audit


def record(
    session: Session,
    *,
    actor: str,
    action: str,
    subject: str,
    old: dict[str, Any] | None = None,
    new: dict[str, Any] | None = None,
) -> None:
    """Adds a row, in the transaction of the change itself."""
    session.add(Audit(at=now(), actor=actor, action=action, subject=subject, old=old, new=new))


def entries(session: Session, *, before: int | None, limit: int) -> list[dict[str, Any]]:
    """Returns the newest rows first, those below the row number `before`."""
    query = select(Audit).order_by(Audit.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Audit.id < before)
    return [
        {
            "id": row.id,
            "at": row.at.isoformat(),
            "actor": row.actor,
            "action": row.action,
            "subject": row.subject,
            "old": row.old,
            "new": row.new,
        }
        for row in session.scalars(query)
    ]
