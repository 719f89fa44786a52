"""Who gets which variant: hashing, enrolment, arms, and how a unit is found in a request. Pure.

Buckets are made by blake2b, so a unit's place depends on nothing but the salt and itself. Weights are frozen for an
experiment and only coverage rises: nobody moves between arms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

BUCKETS = 10_000
MAX_UNIT_CHARACTERS = 256
UNIT_HEADER = "x-espalier-unit"
CONVERSATION_HEADER = "x-espalier-conversation"

UnitKind = Literal["user", "conversation", "request"]
Arm = Literal["control", "treatment"]


@dataclass(frozen=True, slots=True)
class Split:
    """The part of an experiment that decides about a unit."""

    salt: str
    weights: tuple[int, int]  # percent of control and treatment; they sum to 100
    coverage: float


def bucket(salt: str, purpose: str, unit: str) -> int:
    """Returns the place of a unit, 0 to 9,999, uniform over units and independent between salts and purposes."""
    digest = blake2b(f"{salt}\0{purpose}\0{unit}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def enrolled(split: Split, unit: str) -> bool:
    """Returns whether a unit takes part; who does at one coverage does at every higher one."""
    return bucket(split.salt, "enrol", unit) < round(split.coverage * BUCKETS)


def arm(split: Split, unit: str) -> Arm:
    """Returns the arm of a unit, whatever the coverage."""
    return "control" if bucket(split.salt, "arm", unit) < split.weights[0] * (BUCKETS // 100) else "treatment"


def unit_hash(key: bytes, kind: UnitKind, unit: str) -> str:
    """Returns what stands for a unit in the database: a keyed hash of 32 hexadecimal digits.

    The same person has the same hash in every experiment of one database, and none outside it.
    """
    return blake2b(f"{kind}\0{unit}".encode(), key=key, digest_size=16).hexdigest()


def conversation_of(key: bytes, *, key_id: str, system: str, first_user_message: str) -> str:
    """Returns what stands for a conversation that has no id: a keyed hash of how it began."""
    text = "\0".join((key_id, system, first_user_message))
    return blake2b(text.encode(errors="surrogatepass"), key=key, digest_size=16).hexdigest()


def resolve_unit(
    kind: UnitKind,
    *,
    headers: Mapping[str, str],
    fields: Sequence[str | None] = (),
    conversation: str | None = None,
    request_id: str,
) -> str | None:
    """Returns the unit of a request, or None where it cannot be told.

    user: the header, then `fields` (`safety_identifier`, `user`) in order; conversation: the header, then the
    conversation's own hash; request: the request itself.
    """
    if kind == "request":
        return request_id
    if kind == "conversation":
        return _given(headers.get(CONVERSATION_HEADER)) or conversation
    return next((unit for unit in map(_given, (headers.get(UNIT_HEADER), *fields)) if unit), None)


def _given(value: str | None) -> str | None:
    return value.strip() or None if value else None
