"""How `serve` starts the serving service: with what it is told, and with no secret on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from espalier_pipeline import serving


class Ended:
    """A child that has ended at once."""

    started: tuple[list[str], dict[str, Any]]

    def __init__(self, command: list[str], **options: Any) -> None:
        type(self).started = (command, options)

    def wait(self) -> int:
        return 0


def test_the_databases_address_travels_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_DATABASE_URL", "postgresql://me:secret@db/x")
    monkeypatch.setattr(serving.subprocess, "Popen", Ended)
    monkeypatch.setattr(serving.signal, "signal", lambda *_: None)
    assert serving.serve(None, host="127.0.0.1", port=8000, home=tmp_path) == 0
    command, options = Ended.started
    assert not any("secret" in word for word in command)
    assert options["env"]["ESPALIER_DATABASE_URL"] == "postgresql://me:secret@db/x"
