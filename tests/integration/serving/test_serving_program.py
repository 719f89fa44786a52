"""The program: starting, refusing and stopping, with a Ray of its own and on one that is there."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
from pathlib import Path

import httpx
import pytest
from espalier_serving.database import open_database
from espalier_serving.keys import list_keys
from espalier_serving.tables import Variant
from espalier_serving.testing.program import free_port, propose_echoes, serving, start, wait_for
from sqlalchemy import update


def test_it_serves_with_a_ray_of_its_own_and_leaves_nothing_after_sigterm(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'endpoint.db'}"
    propose_echoes(database, a={"label": "A"})
    with serving(database, tmp_path, joined=False) as served:
        assert served.ask().json()["predictions"][0]["label"] == "A"
        written = json.loads((tmp_path / "endpoint.json").read_text())
        assert written == {"url": served.ready["url"], "key": served.ready["key"]}
        assert stat.S_IMODE((tmp_path / "endpoint.json").stat().st_mode) == 0o600
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(timeout=60) == 0
    assert not (tmp_path / "endpoint.json").exists()
    with open_database(database).reading() as session:
        assert all(key["revoked_at"] for key in list_keys(session))
    assert "Traceback" not in (tmp_path / "stderr.txt").read_text()
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in left


def test_a_champion_that_does_not_open_ends_the_start_with_its_reason(joined_ray: None, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'endpoint.db'}"
    propose_echoes(database, a={"refuses_to_load": "the file is damaged"})
    process = start(database, tmp_path, joined=True)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 5
    (error,) = json.loads(output)["errors"]
    assert error["code"] == "champion_failed"
    assert "the file is damaged" in error["message"]
    assert "Traceback" not in (tmp_path / "stderr.txt").read_text()


@pytest.mark.heavy
def test_a_champion_that_was_repaired_is_served_at_the_next_start(joined_ray: None, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'endpoint.db'}"
    propose_echoes(database, a={"refuses_to_load": "the file is damaged"})
    assert start(database, tmp_path, joined=True).wait(timeout=180) == 5
    with open_database(database).writing() as session:
        session.execute(update(Variant).values(engine={"name": "echo", "config": {"label": "A"}}))
    with serving(database, tmp_path) as served:
        assert served.ask().json()["predictions"][0]["label"] == "A"


def test_an_endpoint_that_is_broken_is_told_and_the_others_are_served(joined_ray: None, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'endpoint.db'}"
    propose_echoes(database, a={"label": "A"})
    propose_echoes(database, endpoint="broken", b={"refuses_to_load": "the file is damaged"})
    with serving(database, tmp_path) as served:
        broken, support = served.ready["endpoints"]
        assert (support["error"], served.ask().status_code) == (None, 200)
        assert "the file is damaged" in broken["error"]
        assert served.ask(model="broken").status_code == 503
        assert httpx.get(f"{served.ready['url']}/health/ready", trust_env=False).status_code == 200


def test_ctrl_c_ends_with_130_and_leaves_a_joined_ray_as_it_was(joined_ray: None, tmp_path: Path) -> None:
    import ray
    from ray import serve

    database = f"sqlite:///{tmp_path / 'endpoint.db'}"
    propose_echoes(database, a={"label": "A"})
    with serving(database, tmp_path) as served:
        assert served.ask().status_code == 200
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(timeout=60) == 130
    assert ray.is_initialized()
    wait_for(lambda: not serve.status().applications)


def refusal(database: str, home: Path, *, port: int) -> str:
    """Starts a program that ends with 5 and returns the code of its error."""
    refused = start(database, home, joined=True, port=port)
    output, _ = refused.communicate(timeout=120)
    assert refused.returncode == 5
    return str(json.loads(output)["errors"][0]["code"])


def test_what_a_killed_program_left_is_taken_over_and_kept_from_others(joined_ray: None, tmp_path: Path) -> None:
    from ray import serve

    database, port = f"sqlite:///{tmp_path / 'endpoint.db'}", free_port()
    propose_echoes(database, a={"label": "A"})
    try:
        killed = start(database, tmp_path, joined=True, port=port)
        assert killed.stdout is not None
        ready = json.loads(killed.stdout.readline())
        killed.kill()
        killed.wait(timeout=10)
        question = {"model": "support", "input": "x"}
        headers = {"authorization": f"Bearer {ready['key']}"}
        with httpx.Client(base_url=ready["url"], headers=headers, trust_env=False, timeout=60) as left:
            assert refusal(f"sqlite:///{tmp_path / 'other.db'}", tmp_path, port=port) == "ray_in_use"
            assert left.post("/v1/classify", json=question).status_code == 200  # who was refused has ended nothing
            assert refusal(database, tmp_path, port=free_port()) == "serve_elsewhere"
            with serving(database, tmp_path, port=port) as served:
                assert served.ask().json()["predictions"][0]["label"] == "A"
                assert left.post("/v1/classify", json=question).status_code == 401
    finally:
        serve.shutdown()


def test_ctrl_c_while_it_starts_ends_with_130(joined_ray: None, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'endpoint.db'}"
    propose_echoes(database, a={"label": "A", "slow_to_load_seconds": 60})
    process = start(database, tmp_path, joined=True)
    from ray import serve

    wait_for(lambda: serve.status().applications)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not (tmp_path / "endpoint.json").exists()


def test_an_endpoint_that_has_no_models_yet_starts_and_says_so(joined_ray: None, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'endpoint.db'}"
    with serving(database, tmp_path) as served:
        assert served.ready["endpoints"] == []
        assert served.client.get("/v1/models").json()["data"] == []
        assert served.ask().status_code == 404
        assert httpx.get(f"{served.ready['url']}/health/ready", trust_env=False).status_code == 200
