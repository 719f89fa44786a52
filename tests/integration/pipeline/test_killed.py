"""`kill -9` of the driver and of stages in the middle: the next run finishes, and makes what an unbroken one makes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from espalier_pipeline import run
from espalier_pipeline.view import QuietView

from .conftest import write_small

ONLY = ["--only", "train", "--candidate", "tiny"]


def start(spec: Path) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "espalier_pipeline.command", "run", str(spec), *ONLY, "--json"]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=hear_interrupts)


def hear_interrupts() -> None:
    """Undoes what a shell does to a test run in the background: it ignores SIGINT, and so does all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def refs(document: dict) -> dict[tuple[str, str], str]:
    return {(stage["stage"], stage["name"]): stage["ref"] for stage in document["stages"]}


@pytest.fixture(scope="module")
def unbroken(ray_session, tmp_path_factory) -> tuple[dict, float]:
    """What an unbroken run makes, and its seconds."""
    spec = write_small(tmp_path_factory.mktemp("unbroken"))
    started = time.monotonic()
    result = run(spec, only="train", candidate="tiny", view=QuietView())
    return refs(result.document()), time.monotonic() - started


def is_training(process: psutil.Process) -> bool:
    try:
        return "espalier_training" in " ".join(process.cmdline())
    except psutil.Error:  # gone meanwhile
        return False


def complete(home: Path) -> set[str]:
    """The requests that are answered in a store."""
    return {path.name for path in (home / "store" / "requests").glob("*.json")}


def test_a_killed_driver_leaves_no_process_and_the_next_run_goes_on(unbroken, ray_session, small: Path) -> None:
    expected, seconds = unbroken
    chance = random.Random(1)
    child = start(small)
    time.sleep(seconds * chance.uniform(0.3, 0.7))
    below = psutil.Process(child.pid).children(recursive=True)
    child.send_signal(signal.SIGKILL)
    child.wait()
    psutil.wait_procs(below, timeout=15)
    assert not [process for process in below if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    before = complete(small.parent / ".espalier")
    done = run(small, only="train", candidate="tiny", view=QuietView()).document()
    assert refs(done) == expected
    assert before <= complete(small.parent / ".espalier")
    assert sum(stage["cached"] for stage in done["stages"]) >= min(len(before), 1)


def test_a_killed_stage_is_tried_again_and_makes_the_same(unbroken, ray_session, small: Path) -> None:
    expected, seconds = unbroken
    child = start(small)
    deadline = time.monotonic() + 2 * seconds + 60
    killed = False
    while child.poll() is None and time.monotonic() < deadline:
        stages = [one for one in psutil.Process(child.pid).children() if is_training(one)]
        if stages and not killed:
            time.sleep(2.0)
            stages[0].kill()
            killed = True
        time.sleep(0.2)
    output = child.communicate()[0]
    assert killed
    assert child.returncode == 0
    assert refs(json.loads(output)) == expected


def test_an_interrupted_run_says_so_and_ends_with_130(ray_session, small: Path) -> None:
    child = start(small)
    deadline = time.monotonic() + 60
    while not psutil.Process(child.pid).children() and time.monotonic() < deadline:
        time.sleep(0.1)  # until a stage is at work
    os.kill(child.pid, signal.SIGINT)
    assert child.wait(timeout=60) == 130
    record = json.loads(next((small.parent / ".espalier" / "runs").glob("*/run.json")).read_text())
    assert record["state"] == "interrupted"
