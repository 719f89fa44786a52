"""Ids: UUIDs of version 7 that rise."""

from __future__ import annotations

import time
import uuid

from espalier_serving.ids import short_id, uuid7


def test_ids_are_version_7_carry_the_time_and_rise() -> None:
    made = [uuid7() for _ in range(10_000)]
    assert made == sorted(set(made))
    last = uuid.UUID(made[-1])
    assert (last.version, last.variant) == (7, uuid.RFC_4122)
    assert abs((last.int >> 80) / 1000 - time.time()) < 5


def test_short_ids_differ() -> None:
    assert len({short_id() for _ in range(1000)}) == 1000
