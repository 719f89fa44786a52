"""Progress: events where a driver listens, and nothing at all without a terminal."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from espalier_runtime.progress import EVENTS_VARIABLE, Progress


def _events(monkeypatch: pytest.MonkeyPatch, act: object) -> list[dict]:
    reader, writer = os.pipe()
    monkeypatch.setenv(EVENTS_VARIABLE, str(writer))
    act(Progress("train"))  # type: ignore[operator]
    os.close(writer)
    with os.fdopen(reader) as stream:
        return [json.loads(line) for line in stream]


def test_events_go_to_the_driver_as_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def act(progress: Progress) -> None:
        progress.update(1, 4, "loss 0.5")
        progress.note("opened é")

    assert _events(monkeypatch, act) == [
        {"event": "progress", "stage": "train", "done": 1, "total": 4, "note": "loss 0.5"},
        {"event": "note", "stage": "train", "note": "opened é"},
    ]


def test_a_fast_loop_sends_few_events_and_always_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    def act(progress: Progress) -> None:
        for done in range(1001):
            progress.update(done, 1000)

    events = _events(monkeypatch, act)
    assert len(events) < 20
    assert events[-1]["done"] == 1000


def test_a_driver_that_is_gone_does_not_end_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setenv(EVENTS_VARIABLE, str(writer))
    Progress("train").note("nobody hears this")
    os.close(writer)


def test_it_is_quiet_without_a_terminal(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(EVENTS_VARIABLE, raising=False)
    progress = Progress("train")
    progress.update(1, 2, "half")
    progress.note("done")
    assert capfd.readouterr() == ("", "")


def test_a_terminal_shows_the_stage_and_how_far_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(EVENTS_VARIABLE, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("FORCE_COLOR", "1")
    path = tmp_path / "terminal"
    with path.open("w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setattr("espalier_runtime.progress._is_terminal", lambda: True)
        progress = Progress("train")
        progress.update(2, 4, "loss 0.5")
        progress.close()
    text = path.read_text()
    assert "train" in text
    assert "2/4" in text
    assert "loss 0.5" in text
