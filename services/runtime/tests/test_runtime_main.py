"""The main of a service: exit codes, and one JSON document whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from espalier_runtime import main as main_module
from espalier_runtime.job import Job, Stage
from espalier_runtime.main import PARENT_VARIABLE, stage_main
from espalier_runtime.request import StageRequest
from espalier_sdk import (
    ClusterError,
    DataError,
    EspalierError,
    PluginError,
    Refused,
    SpecError,
    ThresholdMissed,
    TrainingFailed,
)

SPEC = """\
name: tiny
objective: {task: classification, metric: f1}
data: {tickets: {sources: [files]}}
candidates: {one: {strategy: from-scratch}, two: {strategy: peft, base: {from: one}, peft: lora}}
"""

Run = Callable[[Job], dict[str, Any]]


def _fine(job: Job) -> dict[str, Any]:
    (job.out / "a.txt").write_text("a")
    return {"rows": 1}


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a fake stage through the real main; plugins and requests are tried elsewhere."""
    monkeypatch.setattr(main_module, "check_spec", lambda spec, document, plugins: {})
    made = StageRequest(stage="ingest", service="espalier-runtime", kind="corpus", name="tickets", what={})
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)

    def run(
        *arguments: str, stage: Run = _fine, name: str = "ingest", real_request: bool = False
    ) -> tuple[int, str, str]:
        if not real_request:
            monkeypatch.setattr(main_module, "build_request", lambda *_: made)
        argv = ["--spec", str(path), "--store", str(tmp_path / "store"), *arguments]
        with pytest.raises(SystemExit) as left:
            stage_main(Stage(name, stage), argv=argv)
        return (left.value.code, *capsys.readouterr())  # type: ignore[return-value]

    return run


def _raising(error: BaseException) -> Run:
    def stage(job: Job) -> dict[str, Any]:
        raise error

    return stage


def test_a_stage_prints_its_reference_and_the_second_time_finds_it(call: Any) -> None:
    code, out, _ = call()
    assert code == 0
    assert out.startswith("corpus/tickets@")
    assert call("--json")[1] == json.dumps({"ref": out.strip(), "cached": True, "metrics": {"rows": 1}}) + "\n"


CODES = [
    (SpecError("x"), 2),
    (PluginError("x"), 3),
    (DataError("x"), 4),
    (OSError(28, "No space left on device"), 4),
    (ClusterError("x"), 5),
    (ThresholdMissed("x"), 6),
    (Refused("x"), 7),
    (TrainingFailed("x"), 8),
    (EspalierError("x"), 1),
    (ValueError("a defect"), 1),
    (KeyboardInterrupt(), 130),
]


@pytest.mark.parametrize(("error", "expected"), CODES)
def test_each_error_has_its_exit_code_and_one_json_document(call: Any, error: BaseException, expected: int) -> None:
    code, out, _ = call("--json", stage=_raising(error))
    assert code == expected
    (problem,) = json.loads(out)["errors"]
    assert set(problem) == {"code", "message", "file", "line", "column", "field", "given", "accepted", "remedy"}


def test_without_json_errors_go_to_standard_error_with_place_and_remedy(call: Any) -> None:
    error = DataError("is empty", file="a.csv", line=1, remedy="add rows")
    code, out, err = call(stage=_raising(error))
    assert (code, out) == (4, "")
    assert err == "error: a.csv:1: is empty (add rows)\n"


def test_a_users_error_shows_no_traceback_and_a_defect_does(call: Any) -> None:
    assert "Traceback" not in call(stage=_raising(DataError("x")))[2]
    assert "Traceback" in call(stage=_raising(ValueError("x")))[2]


@pytest.mark.parametrize("arguments", [["--stage", "nothing"], ["--no-such-option"], ["--split", "exam"]])
def test_a_wrong_command_line_is_a_usage_error_in_json_too(call: Any, arguments: list[str]) -> None:
    code, out, _ = call("--json", *arguments)
    assert code == 2
    assert json.loads(out)["errors"][0]["code"] == "usage"
    assert call(*arguments)[2].startswith("error: ")


@pytest.mark.parametrize(
    ("name", "arguments", "field"),
    [
        ("preprocess", [], "--input"),
        ("train", ["--candidate", "oen"], "--candidate"),
        ("train", [], "--candidate"),
        ("preprocess", ["--candidate", "oen"], "--candidate"),
        ("ingest", ["--candidate", "oen"], "--candidate"),
        ("ingest", ["--data", "ticket"], "--data"),
        ("ingest", ["--input", "corpus"], "--input"),
        ("train", ["--candidate", "one"], "--input"),
        ("evaluate", [], "--input"),
        ("base", ["--candidate", "two"], "candidates.two"),
        ("ingest", ["--set", "data.tickets.bad_rows=2"], "data.tickets.bad_rows"),
    ],
)
def test_what_does_not_fit_the_spec_is_told_by_option(call: Any, name: str, arguments: list[str], field: str) -> None:
    code, out, err = call("--json", *arguments, name=name, real_request=True)
    assert code == 2, err
    assert json.loads(out)["errors"][0]["field"] == field


def test_an_input_that_is_not_in_the_store_is_a_data_error(call: Any) -> None:
    code, out, _ = call("--json", "--input", "corpus=corpus/tickets@00000000")
    assert code == 4
    assert "names no artifact" in json.loads(out)["errors"][0]["message"]


def test_a_store_that_cannot_be_made_is_a_data_error(call: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, out, _ = call("--json", "--store", str(tmp_path / "file" / "store"))
    assert code == 4
    assert json.loads(out)["errors"][0]["remedy"]


def test_locks_lie_below_home_and_home_may_come_from_the_environment(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call()
    assert (tmp_path / ".espalier" / "locks").is_dir()
    monkeypatch.setenv("ESPALIER_HOME", str(tmp_path / "from-environment"))
    call()
    assert (tmp_path / "from-environment" / "locks").is_dir()
    call("--home", str(tmp_path / "from-option"))
    assert (tmp_path / "from-option" / "locks").is_dir()


def test_a_stage_ends_when_its_driver_dies() -> None:
    code = (
        "import time; from espalier_runtime.main import watch_parent; "
        "watch_parent(); print('on', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {PARENT_VARIABLE: "1"},
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == b"on\n"
    process.stdin.close()  # as the kernel does for a driver that is killed
    assert process.wait(timeout=20) == 130
