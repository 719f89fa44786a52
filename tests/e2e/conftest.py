"""What the story on a cluster needs: the programs, a namespace, the release, and a way to its endpoint."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from espalier_pipeline.client import Client
from espalier_sdk.errors import EspalierError

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "espalier"
NAMESPACE = os.environ.get("E2E_NAMESPACE", "espalier-e2e")
RELEASE = "espalier"
VALUES = Path(os.environ.get("E2E_VALUES", CHART / "ci" / "minimal-values.yaml"))
SPEC = ROOT / "examples" / "support-triage" / "support-triage.yaml"
ESPALIER = [sys.executable, "-m", "espalier_pipeline.command"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [name for name in ("HELM", "KUBECTL") if shutil.which(program(name)) is None]
    reason = f"no {' and no '.join(missing)}" if missing else None
    if reason is None and not os.environ.get("KUBECONFIG"):
        reason = "KUBECONFIG names no cluster"
    for item in items:
        if reason and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"{reason}: nothing was tried on a cluster"))


def program(name: str) -> str:
    """Returns the program that a variable names: HELM, KUBECTL."""
    return os.environ.get(name, name.lower())


def command(*words: object, check: bool = True, seconds: float = 900, **more: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command and returns what it said; its words are in the assertion where it fails."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=seconds, check=False, **more
    )
    assert not check or done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def kubectl(*words: object, check: bool = True, seconds: float = 900) -> str:
    """Runs kubectl in the namespace."""
    return command(program("KUBECTL"), "-n", NAMESPACE, *words, check=check, seconds=seconds).stdout


def get(*words: object) -> dict[str, Any]:
    """Returns what `kubectl get -o json` says."""
    found: dict[str, Any] = json.loads(kubectl("get", *words, "-o", "json"))
    return found


def helm(*words: object, check: bool = True, seconds: float = 900) -> subprocess.CompletedProcess[str]:
    """Runs helm in the namespace."""
    return command(program("HELM"), *words, "-n", NAMESPACE, check=check, seconds=seconds)


def wait_until(what: str, true: Any, *, seconds: float, step: float = 1.0) -> float:
    """Returns after how many seconds something was true; fails after a deadline."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(step)
    return time.monotonic() - begun


def wait_for_endpoint() -> None:
    """Waits until KubeRay says that the release's endpoint is ready."""
    wait_until("an endpoint is there", lambda: "serve-svc" in kubectl("get", "svc", "-o", "name"), seconds=600)
    kubectl("wait", f"rayservice/{RELEASE}", "--for=condition=Ready", "--timeout=600s")


def answers(client: Client, name: str, asked: Any) -> bool:
    """Tells whether an endpoint answers a question."""
    try:
        return bool(client.ask(name, asked)["predictions"])
    except EspalierError:
        return False


@contextmanager
def endpoint() -> Iterator[Client]:
    """Yields a client of the release's endpoint, through a port that kubectl forwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    secret = get("secret", f"{RELEASE}-keys")
    forward = subprocess.Popen(
        [program("KUBECTL"), "-n", NAMESPACE, "port-forward", f"svc/{RELEASE}-serve-svc", f"{port}:8000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until("the port is forwarded", lambda: _listens(port), seconds=60, step=0.2)
        yield Client(f"http://127.0.0.1:{port}", b64decode(secret["data"]["admin"]).decode())
    finally:
        forward.terminate()
        forward.wait(timeout=20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Load:
    """What a load has come to: seconds, answers and failures."""

    seconds: float = 0.0
    answered: int = 0
    failed: int = 0


@contextmanager
def load(model: str, asked: Any, *, during: str) -> Iterator[None]:
    """Asks the endpoint E2E_RATE (50) times a second from a pod, through the Service; fails where a request failed.

    What a port forwards stays with one pod and ends with it; a user's requests come through the Service.
    """
    _start_load(model, asked)
    try:
        wait_until("the load is on", lambda: _load().answered > 100, seconds=120)
        first = _load()
        yield
        last = _load()
        assert get("pod/load")["status"]["phase"] == "Running", "the load ended before it was told to"
        assert last.failed == 0, kubectl("logs", "load", "--tail=2000")[-3000:]
        rate = (last.answered - first.answered) / (last.seconds - first.seconds)
        print(f"{during} under {rate:.0f} requests per second: 0 of {last.answered} failed", flush=True)
    finally:
        kubectl("delete", "pod", "load", "--grace-period=1")


def _load() -> Load:
    told = [line for line in kubectl("logs", "load", "--tail=50").splitlines() if line.startswith("{")]
    return Load(**json.loads(told[-1])) if told else Load()


def _start_load(model: str, asked: Any) -> None:
    """Starts the pod that asks, in the image that the release's head has."""
    head = get("pods", "-l", "ray.io/node-type=head")["items"][0]["spec"]["containers"][0]
    script = Path(__file__).with_name("load.py").read_text(encoding="utf-8")
    url, rate = f"http://{RELEASE}-serve-svc:8000", os.environ.get("E2E_RATE", "50")
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "load"},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "load",
                    "image": head["image"],
                    "command": ["python", "-c", script, url, model, json.dumps(asked), rate],
                    "env": [
                        {
                            "name": "ESPALIER_KEY",
                            "valueFrom": {"secretKeyRef": {"name": f"{RELEASE}-keys", "key": "admin"}},
                        }
                    ],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
    command(program("KUBECTL"), "-n", NAMESPACE, "apply", "-f", "-", input=json.dumps(pod))
    kubectl("wait", "pod/load", "--for=condition=Ready", "--timeout=120s")


def submitted(*more: str) -> dict[str, Any]:
    """Submits the demo's pipeline, follows it to its end, and returns its result."""
    done = command(*ESPALIER, "submit", SPEC, "-n", NAMESPACE, "--json", *more, seconds=1800)
    document: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return document


def refs(document: dict[str, Any]) -> dict[str, str]:
    """Returns what each stage of a run made, by stage and name."""
    return {f"{one['stage']} {one['name']}": one["ref"] for one in document["stages"] if one["ref"]}
