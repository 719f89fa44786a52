"""What a user sees meanwhile: on a terminal the text itself, whatever it holds; elsewhere a line now and then."""

from __future__ import annotations

from typing import Any

import pytest
from espalier_pipeline import view as module
from espalier_pipeline.view import PlainView, TerminalView


def test_square_brackets_of_a_message_are_shown_and_do_not_end_the_run(capsys) -> None:
    view = TerminalView()
    view.stage_began("train", "[/bold]")
    view.event({"event": "note", "note": "label [/red] seen"})
    view.note("columns [a] and [/b]")
    view.stage_done("train", "[/x]", 1.0, cached=False)
    view.close()
    shown = capsys.readouterr().err
    assert "columns [a] and [/b]" in shown
    assert "[/x]" in shown


def test_without_a_terminal_a_long_stage_tells_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    view = PlainView()
    view.stage_began("train", "full")

    def at(seconds: float, **event: Any) -> str:
        now[0] = seconds
        view.event({"event": "progress", "note": "", "total": None} | event)
        return capsys.readouterr().err

    assert at(10.0, done=1, total=90) == ""
    assert (
        at(31.0, done=12, total=90, note="loss 0.412, 80 s left") == "  train full: 12 of 90, loss 0.412, 80 s left\n"
    )
    assert at(32.0, done=13, total=90) == ""
    assert at(62.0, done=300) == "  train full: 300\n"
    assert at(99.0, event="note", note="a sentence") == ""
