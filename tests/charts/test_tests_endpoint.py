"""What `helm test` runs: its pod, and its program against a real gateway."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import uvicorn
from espalier_serving.api.app import build_app
from espalier_serving.core import Core
from espalier_serving.database import open_database
from espalier_serving.testing import FixedCaller, make_key, ready_endpoint

PROGRAM = Path(__file__).resolve().parents[2] / "charts" / "espalier" / "files" / "ask_demo.py"


@pytest.fixture
def gateway(tmp_path):
    url = f"sqlite:///{tmp_path / 'endpoint.db'}"
    database = open_database(url)
    ids = ready_endpoint(database, url)
    core = Core(database=database, caller=FixedCaller({ids["a"]: "billing", ids["b"]: "returns"}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(build_app(core), host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}", make_key(database)
    server.should_exit = True
    thread.join()
    database.close()


def ask(url, key, endpoint="support", seconds="3"):
    variables = {"ESPALIER_URL": url, "ESPALIER_ADMIN_KEY": key, "ESPALIER_TEST_ENDPOINT": endpoint}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.read_text(encoding="utf-8")],
        env={**os.environ, **variables, "ESPALIER_TEST_SECONDS": seconds},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_pod_asks_with_the_administrators_key(chart, environment):
    pod = chart().one("Pod", "espalier-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["containers"][0]["args"] == [PROGRAM.read_text(encoding="utf-8")]
    assert environment(pod) == {
        "ESPALIER_URL": "http://espalier-serve-svc:8000",
        "ESPALIER_ADMIN_KEY": {"secretKeyRef": {"name": "espalier-keys", "key": "admin"}},
    }


def test_without_the_demo_it_has_no_key(chart, environment):
    assert set(environment(chart({"demo": {"enabled": False}}).one("Pod", "espalier-test"))) == {"ESPALIER_URL"}


def test_an_endpoint_that_works_passes(gateway):
    done = ask(*gateway)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "ok   the gateway is ready"
    assert lines[1] in ("ok   support answers billing (0.75)", "ok   support answers returns (0.75)")
    assert lines[2] == "ok   feedback is recorded"
    assert lines[3].startswith("ok   unit helm-test gets ")


def test_without_a_key_only_readiness_is_asked(gateway):
    done = ask(gateway[0], "")
    assert done.returncode == 0
    assert "nothing to ask" in done.stdout


@pytest.mark.parametrize(("key", "endpoint", "said"), [("esk_wrong", "support", "401"), (None, "absent", "404")])
def test_an_endpoint_that_does_not_answer_fails_with_the_reason(gateway, key, endpoint, said):
    done = ask(gateway[0], key or gateway[1], endpoint, seconds="0")
    assert done.returncode == 1
    assert "FAIL POST /v1/classify" in done.stderr
    assert f"status {said}" in done.stderr


def test_an_endpoint_that_is_away_fails(gateway):
    done = ask("http://127.0.0.1:9", gateway[1], seconds="0")
    assert done.returncode == 1
    assert "FAIL GET /health/ready: status 0" in done.stderr
