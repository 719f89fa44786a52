"""Progress: events to a parent process, a bar on a terminal, or nothing at all.

Knows nothing about what is being done.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rich.progress

EVENTS_VARIABLE = "ESPALIER_EVENTS_FD"
_INTERVAL_SECONDS = 0.2


class Progress:
    """Tells how far a stage is: to the driver where one listens, else to a terminal, else quietly to nobody."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._last = 0.0
        descriptor = os.environ.get(EVENTS_VARIABLE)
        self._events = int(descriptor) if descriptor else None
        self._bar: rich.progress.Progress | None = _bar() if self._events is None and _is_terminal() else None

    def update(self, done: float, total: float | None, note: str = "") -> None:
        """Reports a position; at most five times a second, and always at the end."""
        now = time.monotonic()
        if done != total and now - self._last < _INTERVAL_SECONDS:
            return
        self._last = now
        self._send({"event": "progress", "stage": self._stage, "done": done, "total": total, "note": note})

    def note(self, text: str) -> None:
        """Reports a sentence."""
        self._send({"event": "note", "stage": self._stage, "note": text})

    def close(self) -> None:
        """Leaves the terminal as it was; events need no end."""
        if self._bar is not None:
            self._bar.stop()

    def _send(self, event: dict[str, Any]) -> None:
        if self._events is not None:
            with contextlib.suppress(OSError):  # the driver is gone: the stage is told so by its own watch
                os.write(self._events, json.dumps(event).encode() + b"\n")
        elif self._bar is not None:
            self._draw(self._bar, event)

    def _draw(self, bar: rich.progress.Progress, event: dict[str, Any]) -> None:
        if not bar.task_ids:
            bar.start()
            bar.add_task(self._stage, total=None, note="")
        place = {key: event[key] for key in ("total",) if event.get(key) is not None}
        bar.update(bar.task_ids[0], completed=event.get("done"), note=event["note"], refresh=True, **place)


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def _bar() -> rich.progress.Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
