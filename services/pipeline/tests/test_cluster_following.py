"""Following a driver's Job: whole lines, once each, over restarts of its pod and of the API server; its exit code."""

from __future__ import annotations

from typing import Any

import pytest
from espalier_pipeline.cluster import submitting
from espalier_pipeline.cluster.looking import describe, render
from espalier_pipeline.cluster.submitting import Job, follow
from espalier_sdk.errors import ClusterError

DONE = {"type": "Complete", "status": "True"}


class ScriptedJob(Job):
    """A Job that looks at each poll as the next step of a script says; the last step stays."""

    def __init__(self, *script: dict[str, Any] | Exception) -> None:
        super().__init__(cluster=None, name="triage-0123456789")  # type: ignore[arg-type]
        self.cluster = type("Cluster", (), {"namespace": "models"})()
        self.script = list(script)
        self.now: dict[str, Any] = {}

    def get(self) -> dict[str, Any] | None:
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        self.now = step
        return {"metadata": {"name": self.name}, "status": {"conditions": step.get("conditions", [])}}

    def pods(self) -> list[dict[str, Any]]:
        return [
            {
                "metadata": {"name": name, "uid": name},
                "status": {
                    "phase": "Running",
                    "containerStatuses": [{"state": {"terminated": {"exitCode": self.now.get("code")}}}],
                },
            }
            for name in self.now["logs"]
        ]

    def log(self, pod: str) -> str:
        return str(self.now["logs"][pod])


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting.time, "sleep", lambda seconds: None)


def test_each_line_comes_once_and_whole_over_two_pods() -> None:
    job = ScriptedJob(
        {"logs": {"a": "ingest 1 s\ntrai"}},
        {"logs": {"a": "ingest 1 s\ntrain 2 s\n"}},
        {"logs": {"a": "ingest 1 s\ntrain 2 s\n", "b": "evaluate 3 s\n"}, "conditions": [DONE]},
    )
    assert list(job.lines()) == ["ingest 1 s", "train 2 s", "evaluate 3 s"]


def test_an_api_server_that_restarts_ends_nothing() -> None:
    away = ClusterError("away", retryable=True)
    job = ScriptedJob({"logs": {"a": "one\n"}}, away, away, {"logs": {"a": "one\ntwo\n"}, "conditions": [DONE]})
    assert list(job.lines()) == ["one", "two"]
    with pytest.raises(ClusterError, match="forbidden"):
        list(ScriptedJob(ClusterError("forbidden")).lines())


@pytest.mark.parametrize("as_json", [False, True])
def test_the_result_is_the_one_document_of_json_and_no_line_of_the_log(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = {"a": 'train 2 s\nespalier-result {"run": "1"}\n'}
    job = ScriptedJob({"logs": logs, "conditions": [DONE], "code": 6})
    assert follow(job, as_json=as_json) == 6
    printed = capsys.readouterr()
    if as_json:
        assert printed.out == '{"run": "1"}\n'
        assert printed.err == "train 2 s\n"
    else:
        assert printed.out == "train 2 s\n"
        assert printed.err == "next             espalier runs triage-0123456789 -n models\n"


def test_a_job_that_was_deleted_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    job = ScriptedJob({"logs": {}})
    monkeypatch.setattr(job, "get", lambda: None)
    with pytest.raises(ClusterError, match="was deleted"):
        job.exit_code()


def test_submissions_are_listed_with_how_they_stand() -> None:
    base = {"metadata": {"name": "one", "creationTimestamp": "t0"}}
    failed = {"type": "Failed", "status": "True", "message": "exit code 4"}
    found = [
        describe({**base, "status": {"active": 1, "startTime": "t1"}}),
        describe({**base, "status": {}}),
        describe({**base, "status": {"succeeded": 1, "conditions": [DONE], "completionTime": "t2"}}),
        describe({**base, "status": {"conditions": [failed]}}),
    ]
    assert [one["state"] for one in found] == ["running", "waiting", "done", "failed"]
    assert found[3]["reason"] == "exit code 4"
    assert render(found).splitlines()[3].endswith("t0  exit code 4")
    assert render([]) == "nothing was submitted yet"
