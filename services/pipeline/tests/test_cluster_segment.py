"""A segment inside its pod: what it leaves in the store about how it ended, and what it prints of logs that go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from espalier_pipeline.cluster import segment
from espalier_pipeline.cluster.segments import outcome_path
from espalier_runtime import shelf
from espalier_runtime.store import Store
from espalier_sdk.errors import TrainingFailed


def test_an_error_s_log_is_printed_to_its_end_and_the_outcome_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ESPALIER_STORE", str(tmp_path / "store"))
    log = tmp_path / "train-full.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))

    def fails(*_: object, **__: object) -> None:
        raise TrainingFailed("it broke", file=str(log), remedy="see the log")

    monkeypatch.setattr(segment, "_perform", fails)
    with pytest.raises(SystemExit) as ended:
        segment.main("triage-0123456789", "ab", "u-1", "all", 0)
    assert ended.value.code == TrainingFailed.exit_code
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "  train-full: line 60"
    assert said[-1] == "  train-full: line 99"
    left = shelf.get(Store.open(str(tmp_path / "store")), outcome_path("triage-0123456789", "u-1", "all", 0))
    assert left
    outcome = json.loads(left)
    assert (outcome["exit_code"], outcome["retryable"]) == (TrainingFailed.exit_code, False)
    assert outcome["errors"][0]["message"] == "it broke"
