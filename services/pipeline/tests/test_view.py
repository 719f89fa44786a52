"""What a terminal shows is the text itself, whatever it holds."""

from __future__ import annotations

from espalier_pipeline.view import TerminalView


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
