"""Following a driver's Job: whole lines, once each, over restarts of its pod and of the API server; its exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from espalier_pipeline.cluster import submitting
from espalier_pipeline.cluster.carried import packed, print_carried
from espalier_pipeline.cluster.looking import describe, print_logs, render
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


def ended_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> ScriptedJob:
    """Returns a Job whose log carries a result and a report, as a driver prints them."""
    page = tmp_path / "page.html"
    page.write_text("<p>three models</p>" * 5000)
    print("train 2 s")
    print_carried({"run": "1", "report": None}, packed(page))
    return ScriptedJob({"logs": {"a": capsys.readouterr().out}, "conditions": [DONE], "code": 6})


@pytest.mark.parametrize("as_json", [False, True])
def test_result_and_report_are_no_lines_of_the_log(
    as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ended_with(tmp_path, capsys)
    assert follow(job, home=tmp_path, as_json=as_json) == 6
    printed = capsys.readouterr()
    report = tmp_path / "submissions" / "triage-0123456789" / "report.html"
    assert report.read_text() == "<p>three models</p>" * 5000
    if as_json:
        assert json.loads(printed.out) == {"run": "1", "report": str(report)}
        assert printed.err == "train 2 s\n"
    else:
        assert printed.out == f"train 2 s\nreport           {report}\n"
        assert printed.err == "next             espalier runs triage-0123456789 -n models\n"


def test_the_report_comes_with_the_log_of_a_job_that_ended_long_ago(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ended_with(tmp_path, capsys)
    job.get()
    assert print_logs(job, following=False, home=tmp_path) == 0
    report = tmp_path / "submissions" / "triage-0123456789" / "report.html"
    assert capsys.readouterr().out == f"train 2 s\nreport           {report}\n"
    assert report.is_file()


def test_a_run_without_a_report_leaves_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_carried({"errors": []}, None)
    job = ScriptedJob({"logs": {"a": capsys.readouterr().out}, "conditions": [DONE], "code": 4})
    assert follow(job, home=tmp_path, as_json=True) == 4
    assert json.loads(capsys.readouterr().out) == {"errors": []}
    assert list(tmp_path.iterdir()) == []


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
