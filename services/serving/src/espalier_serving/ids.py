"""Names for new rows: UUIDs of version 7, which sort by time, and short random ids."""

from __future__ import annotations

import os
import secrets
import threading
import time
import uuid
from datetime import UTC, datetime

_TICKS_PER_MILLISECOND = 4096
_VERSION_7 = 7 << 76
_VARIANT = 0b10 << 62

_lock = threading.Lock()
_last_tick = 0


def uuid7() -> str:
    """Returns a new UUID of version 7 (RFC 9562, method 3): 60 bits of time, then random bits.

    Those that one process makes rise strictly, also within a millisecond.
    """
    tick = _next_tick()
    high, low = tick % _TICKS_PER_MILLISECOND, int.from_bytes(os.urandom(8), "big") >> 2
    return str(uuid.UUID(int=(tick // _TICKS_PER_MILLISECOND) << 80 | _VERSION_7 | high << 64 | _VARIANT | low))


def short_id() -> str:
    """Returns twelve random hexadecimal digits."""
    return secrets.token_hex(6)


def now() -> datetime:
    """Returns the moment, in UTC."""
    return datetime.now(UTC)


def _next_tick() -> int:
    global _last_tick
    with _lock:
        _last_tick = max(_last_tick + 1, time.time_ns() * _TICKS_PER_MILLISECOND // 1_000_000)
        return _last_tick
