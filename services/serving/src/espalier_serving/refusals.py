"""The ways in which the endpoint's state refuses a request, with the codes that the HTTP layer maps to statuses."""

from __future__ import annotations

from espalier_sdk.errors import Refused

NOT_FOUND = "not_found"
STALE_REVISION = "stale_revision"
CONFLICT = "conflict"


def not_found(what: str, name: str, *, known: str | None = None) -> Refused:
    """Returns the refusal of a name that stands for nothing."""
    return Refused(f"there is no {what} {name!r}", code=NOT_FOUND, given=name, accepted=known)


def conflict(message: str, *, remedy: str | None = None, given: str | None = None) -> Refused:
    """Returns the refusal of a change that the present state forbids."""
    return Refused(message, code=CONFLICT, given=given, remedy=remedy)


def stale(*, given: str | None, current: int | None) -> Refused:
    """Returns the refusal of a change that was decided on an older revision, or on none."""
    message = "the write carries no revision" if given is None else f"revision {given} is not the current one"
    return Refused(
        message,
        code=STALE_REVISION,
        given=given,
        accepted="no If-Match: there is no such endpoint yet" if current is None else f"If-Match: {current}, or *",
        remedy="read the endpoint again and decide again",
    )
