"""Run records: whose process it is, ids that are no patterns, and records that are damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from espalier_pipeline.command import run as command
from espalier_pipeline.records import RunRecord
from espalier_sdk.errors import DataError, SpecError

WORKING = """
import signal, sys, time
from pathlib import Path
from espalier_pipeline.records import RunRecord
for name in sys.argv[2:]:
    signal.signal(getattr(signal, name), signal.SIG_IGN)
RunRecord.begin(Path(sys.argv[1]), name="small", spec=Path("small.yaml"))
print("on", flush=True)
time.sleep(120)
"""


def at_work(runs: Path, *ignored: str) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", WORKING, str(runs), *ignored], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "on\n"
    return child


def test_a_run_whose_number_went_to_another_process_is_interrupted(tmp_path: Path) -> None:
    record = RunRecord.begin(tmp_path, name="small", spec=Path("small.yaml"))
    assert record.state() == "running"
    assert record.process() == os.getpid()
    record.update(created_at=record.data["created_at"] - 60)
    assert record.state() == "interrupted"
    assert record.process() is None


@pytest.mark.parametrize("ignored", [(), ("SIGINT",)], ids=["SIGINT", "SIGTERM"])
def test_stop_ends_a_run_also_where_it_ignores_the_first_signal(
    tmp_path: Path, ignored: tuple[str, ...], capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espalier_pipeline.commands.looking._PATIENCE", ((signal.SIGINT, 1), (signal.SIGTERM, 5)))
    child = at_work(tmp_path / "runs", *ignored)
    assert command(["stop", "", "--home", str(tmp_path), "--json"]) == 0
    assert '"state": "interrupted"' in capsys.readouterr().out
    child.wait(timeout=10)


def test_stop_says_so_where_a_run_cannot_be_ended(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espalier_pipeline.commands.looking._PATIENCE", ((signal.SIGINT, 0.3), (signal.SIGTERM, 0.3)))
    child = at_work(tmp_path / "runs", "SIGINT", "SIGTERM")
    assert command(["stop", "", "--home", str(tmp_path)]) == 5
    assert f"kill -9 {child.pid}" in capsys.readouterr().err
    child.kill()
    child.wait(timeout=10)
    assert command(["stop", "", "--home", str(tmp_path)]) == 2


@pytest.mark.parametrize("identity", ["/abs", "**", "../x", "[", "nope"])
def test_what_is_no_id_names_no_run(tmp_path: Path, identity: str) -> None:
    RunRecord.begin(tmp_path, name="small", spec=Path("small.yaml"))
    with pytest.raises(SpecError, match="names no run"):
        RunRecord.load(tmp_path, identity)


def test_a_damaged_record_is_named_and_hides_no_other(tmp_path: Path) -> None:
    whole = RunRecord.begin(tmp_path, name="small", spec=Path("small.yaml"))
    damaged = RunRecord.begin(tmp_path, name="small", spec=Path("small.yaml"))
    (damaged.folder / "run.json").write_text("{")
    assert [record.id for record in RunRecord.all(tmp_path)] == [whole.id]
    with pytest.raises(DataError, match="damaged"):
        RunRecord.load(tmp_path, damaged.id)


def test_logs_of_a_pattern_are_none(tmp_path: Path, capsys) -> None:
    record = RunRecord.begin(tmp_path / "runs", name="small", spec=Path("small.yaml"))
    (record.logs / "train-tiny.log").write_text("one\n")
    for stage in ("**", "/abs", "["):
        assert command(["logs", record.id, stage, "--home", str(tmp_path)]) == 2
    assert command(["logs", record.id, "train", "--home", str(tmp_path)]) == 0
    assert "train-tiny: one" in capsys.readouterr().out


def test_an_espalier_command_ends_with_the_parent_that_asks_for_it(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    record = RunRecord.begin(runs, name="small", spec=Path("small.yaml"))
    line = [sys.executable, "-m", "espalier_pipeline.command", "logs", record.id, "-f", "--home", str(tmp_path)]
    watched = {**os.environ, "ESPALIER_PARENT_WATCH": "1"}
    child = subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=watched)
    time.sleep(1.0)
    assert child.poll() is None
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(timeout=20) == 130
