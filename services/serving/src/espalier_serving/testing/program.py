"""The endpoint as a child process, with a client of it: for tests that need Ray Serve."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from espalier_serving.proposing import propose

START_SECONDS = 120.0


@dataclass
class Served:
    """A running endpoint: its process, database and a client that has every role."""

    process: subprocess.Popen[str]
    database: str
    home: Path
    ready: dict[str, Any]
    client: httpx.Client

    def ask(self, text: Any = "hello", *, model: str = "support", **more: Any) -> httpx.Response:
        """Classifies a text; asks again where a busy disk made the answer degraded, which is no fault."""
        for _ in range(20):
            response = self.client.post("/v1/classify", json={"model": model, "input": text, **more})
            if response.headers.get("x-espalier-assignment") != "degraded":
                break
        return response

    def unit_of(self, variant: str) -> str:
        """Returns a unit that the experiment gives that variant."""
        for number in range(200):
            found = self.client.get("/v1/assignments", params={"model": "support", "unit": f"user {number}"})
            if found.json()["variant"] == variant:
                return f"user {number}"
        raise AssertionError(f"no unit has variant {variant}")

    def variant(self, name: str) -> dict[str, Any]:
        """Returns a variant of the endpoint `support` as clients read it."""
        found = self.client.get("/v1/endpoints/support").json()["variants"]
        return next(one for one in found if one["name"] == name)

    def split(self, units: int) -> Counter[str]:
        """Returns how often each variant answered some units."""
        return Counter(self.ask(user=f"user {number}").headers["x-espalier-variant"] for number in range(units))


def wait_for(condition: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """Returns what a condition gives as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
    return found


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def propose_echoes(database: str, *, endpoint: str = "support", **echoes: dict[str, Any]) -> dict[str, Any]:
    """Proposes echo variants; the first is the champion, and a second one is tried against it."""
    letters = dict(zip(echoes, "abcdef", strict=False))
    names = list(echoes)
    split = {"weights": [50, 50], "coverage": 1.0, "unit": "user", "control": names[0], "treatment": names[-1]}
    return propose(
        database,
        endpoint=endpoint,
        task="classification",
        variants=[
            (name, f"model/{name}@{letters[name] * 64}", {"name": "echo", "config": config}, {"num_cpus": 0.25})
            for name, config in echoes.items()
        ],
        bootstrap=names[0],
        experiment=split if len(names) > 1 else None,
    )


def start(database: str, home: Path, *options: str, port: int | None = None, joined: bool) -> subprocess.Popen[str]:
    """Starts the program; `joined` lets it join the Ray at RAY_ADDRESS, else it starts its own."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}
    if joined:
        assert environment.get("RAY_ADDRESS"), "there is no Ray to join"
    else:
        environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "espalier_serving", "--database", database, "--store", str(home / "store")]
    return subprocess.Popen(
        [*command, "--home", str(home), "--port", str(port or free_port()), "--json", *options],
        stdout=subprocess.PIPE,
        stderr=(home / "stderr.txt").open("w"),
        text=True,
        env=environment,
    )


@contextlib.contextmanager
def serving(database: str, home: Path, *options: str, port: int | None = None, joined: bool = True) -> Iterator[Served]:
    """Yields a running endpoint and stops it in the end."""
    process = start(database, home, *options, port=port, joined=joined)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (home / "stderr.txt").read_text()
        ready = json.loads(line)
        assert ready.get("event") == "ready", ready
        headers = {"authorization": f"Bearer {ready['key']}"}
        with httpx.Client(base_url=ready["url"], headers=headers, trust_env=False, timeout=60) as client:
            yield Served(process, database, home, ready, client)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        finally:
            process.kill()
