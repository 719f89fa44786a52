"""`submit --address` against a real Ray with its Jobs API, with a plugin that is shipped along."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from espalier_pipeline.command import run as command


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A Ray of its own with a dashboard, beside the run's own; ended with the module."""
    port, temp = free_port(), Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray's sockets lie in it
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_A")}
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "HOME": str(temp)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    line = [
        "ray",
        "start",
        "--head",
        "--block",
        "--port=0",
        "--num-cpus=2",
        f"--temp-dir={temp}",
        f"--dashboard-port={port}",
    ]
    # Two Rays of one machine share no agent port, and without an agent nobody takes jobs.
    line.append(f"--dashboard-agent-listen-port={free_port()}")
    holder = subprocess.Popen(line, stdout=subprocess.DEVNULL, env=environment)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/api/jobs/", timeout=5).status_code == 200:
                break
        except httpx.HTTPError:
            time.sleep(0.5)
    yield address
    below = psutil.Process(holder.pid).children(recursive=True)
    for process in (*below, psutil.Process(holder.pid)):
        process.kill()  # nothing of it is wanted again; asked to end, it takes half a minute
    holder.wait(timeout=60)
    shutil.rmtree(temp, ignore_errors=True)


def test_a_submitted_pipeline_makes_what_a_local_run_would_and_is_followed(cluster, small, monkeypatch, capsys) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    plugin = small.parent / "loud"
    assert command(["plugins", "new", "loud", "--out", str(plugin)]) == 0
    text = small.read_text().replace(
        "transforms: [clean,", "transforms: [clean, {name: loud, config: {columns: [text]}},"
    )
    start, stop = text.index("  wide:"), text.index("evaluate:")
    small.write_text(text[:start] + text[stop : text.index("serve:")])  # one candidate, nothing to try against it
    store = small.parent / "shared" / "store"
    line = [sys.executable, "-m", "espalier_pipeline.command", "submit", str(small), "--address", cluster]
    line += ["--store", str(store), "--plugin", str(plugin)]
    # The plugin is not installed here either: a submitting laptop needs it only to check the spec.
    here = {**os.environ, "PYTHONPATH": unpacked(plugin, small.parent / "built")}
    done = subprocess.run(line, capture_output=True, text=True, timeout=280, env=here, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train      tiny" in done.stdout
    assert "objective" in done.stdout
    runs = list((store.parent / "runs").glob("*/run.json"))
    assert json.loads(runs[0].read_text())["state"] == "done"


def unpacked(plugin: Path, out: Path) -> str:
    """Builds a plugin's wheel and unpacks it, which is what installing a pure Python wheel does."""
    import zipfile

    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(plugin)]
    subprocess.run(build, check=True, capture_output=True)
    for wheel in out.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(out / "site")
    return str(out / "site")


def test_an_address_without_ray_is_one_clear_error(small, capsys) -> None:
    assert command(["submit", str(small), "--address", "http://127.0.0.1:9"]) == 5
    assert "http://127.0.0.1:9" in capsys.readouterr().err
