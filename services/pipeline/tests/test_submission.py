"""`submit` against a client that fails in the ways that networks do."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from espalier_pipeline import submission
from espalier_pipeline.command import run as command

ADDRESS = "http://head:8265"


class FakeClient:
    """A Jobs API: `failures` are raised in turn by whatever is asked first."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.failures: list[Exception] = []

    def _answer(self, value: Any) -> Any:
        if self.failures:
            raise self.failures.pop(0)
        return value

    def list_jobs(self) -> list[Any]:
        return self._answer([])

    def submit_job(self, **job: Any) -> None:
        self.jobs.append(job)

    def get_job_status(self, identity: str) -> str:
        return self._answer("SUCCEEDED")

    def get_job_logs(self, identity: str) -> str:
        return self._answer("all done\n")

    def get_job_info(self, identity: str) -> Any:
        return SimpleNamespace(status="SUCCEEDED", driver_exit_code=0, message="")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()
    monkeypatch.setattr(submission, "_client", lambda address: fake)
    monkeypatch.setattr(submission.time, "sleep", lambda seconds: None)
    monkeypatch.delenv("ESPALIER_STORE", raising=False)
    return fake


def test_a_cluster_that_goes_away_while_asked_is_one_clear_error(spec: Path, client: FakeClient, capsys) -> None:
    client.failures = [ConnectionResetError("reset by peer")]
    assert command(["submit", str(spec), "--address", ADDRESS, "--json"]) == 5
    (error,) = json.loads(capsys.readouterr().out)["errors"]
    assert ADDRESS in error["message"]


def test_a_dashboard_that_is_away_for_a_moment_is_asked_again(spec: Path, client: FakeClient, capsys) -> None:
    real = client.submit_job

    def submit_job(**job: Any) -> None:
        real(**job)
        client.failures = [ConnectionRefusedError("refused"), TimeoutError("slow")]

    client.submit_job = submit_job  # type: ignore[method-assign]
    assert command(["submit", str(spec), "--address", ADDRESS]) == 0
    assert "all done" in capsys.readouterr().out


def test_the_store_of_the_environment_goes_along_and_none_is_warned_of(
    spec: Path, client: FakeClient, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert command(["submit", str(spec), "--address", ADDRESS, "--detach"]) == 0
    assert "without --store" in capsys.readouterr().err
    monkeypatch.setenv("ESPALIER_STORE", "s3://bucket/store")
    line = ["submit", str(spec), "--address", ADDRESS, "--detach", "--set", "objective.at_least=0.5"]
    assert command(line) == 0
    printed = capsys.readouterr().err
    assert "without --store" not in printed
    assert "--store s3://bucket/store" in client.jobs[-1]["entrypoint"]
    assert printed.splitlines()[-1].endswith("--store s3://bucket/store --set objective.at_least=0.5")


def test_a_file_that_is_not_there_is_not_left_behind_silently(spec: Path, client: FakeClient, capsys) -> None:
    (spec.parent / "mails.csv").unlink()
    assert command(["submit", str(spec), "--address", ADDRESS]) == 4
    assert "mails.csv" in capsys.readouterr().err
    assert not client.jobs
