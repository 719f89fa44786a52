"""What a user sees while a run works: a live line on a terminal, one line per finished stage elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

_TOLD_SECONDS = 30.0  # where there is no terminal: between two lines on how far a stage is


class View(Protocol):
    """What the driver tells while it works."""

    def stage_began(self, stage: str, name: str) -> None:
        """Hears that a stage was started."""

    def event(self, event: dict[str, Any]) -> None:
        """Hears a stage's progress: `event` (progress or note), `stage`, `done`, `total`, `note`."""

    def stage_done(self, stage: str, name: str, seconds: float, *, cached: bool) -> None:
        """Hears that a stage is done, or was done before."""

    def note(self, text: str) -> None:
        """Hears a sentence."""

    def close(self) -> None:
        """Hears that the run is over."""


class QuietView:
    """Says nothing; for notebooks and tests."""

    def stage_began(self, stage: str, name: str) -> None:
        """Says nothing."""

    def event(self, event: dict[str, Any]) -> None:
        """Says nothing."""

    def stage_done(self, stage: str, name: str, seconds: float, *, cached: bool) -> None:
        """Says nothing."""

    def note(self, text: str) -> None:
        """Says nothing."""

    def close(self) -> None:
        """Has nothing to close."""


class PlainView(QuietView):
    """One line per finished stage, on standard error, and now and then how far one is that takes long."""

    def __init__(self) -> None:
        self._present, self._told = "", 0.0

    def stage_began(self, stage: str, name: str) -> None:
        """Takes the stage for the present one."""
        self._present, self._told = f"{stage} {name}", time.monotonic()

    def event(self, event: dict[str, Any]) -> None:
        """Prints how far the stage is, unless that was told a short time ago."""
        now = time.monotonic()
        if event.get("event") != "progress" or now - self._told < _TOLD_SECONDS:
            return
        self._told = now
        of = f" of {event['total']:g}" if event.get("total") else ""
        note = f", {event['note']}" if event.get("note") else ""
        self.note(f"{self._present}: {event['done']:g}{of}{note}")

    def stage_done(self, stage: str, name: str, seconds: float, *, cached: bool) -> None:
        """Prints the stage and its seconds, or that it was done before."""
        print(_line(stage, name, seconds, cached=cached), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Prints a sentence."""
        print(f"  {text}", file=sys.stderr, flush=True)


class TerminalView(QuietView):
    """Finished stages as lines, the present one with a bar below them."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._progress.start()
        self._task: Any = None

    def stage_began(self, stage: str, name: str) -> None:
        """Shows the stage as the present one."""
        self._forget()
        self._task = self._progress.add_task(f"{stage:<10} {name}", total=None, note="")

    def event(self, event: dict[str, Any]) -> None:
        """Moves the bar."""
        if self._task is not None:
            if event.get("event") == "progress":
                self._progress.update(
                    self._task, completed=event["done"], total=event["total"], note=event.get("note", "")
                )
            else:
                self._progress.update(self._task, note=event.get("note", ""))

    def stage_done(self, stage: str, name: str, seconds: float, *, cached: bool) -> None:
        """Leaves a line."""
        self._forget()
        self._progress.console.print(_line(stage, name, seconds, cached=cached), highlight=False, markup=False)

    def note(self, text: str) -> None:
        """Leaves a sentence."""
        self._progress.console.print(f"  {text}", highlight=False, markup=False)

    def close(self) -> None:
        """Gives the terminal back."""
        self._progress.stop()

    def _forget(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


def view_for(stream_is_terminal: bool) -> View:
    """Returns the view that suits standard error."""
    return TerminalView() if stream_is_terminal else PlainView()


def _line(stage: str, name: str, seconds: float, *, cached: bool) -> str:
    return f"{stage:<10} {name:<28} {'done before' if cached else f'{seconds:6.1f} s'}"
