"""The driver: what is done is not done again, what died is tried again, what failed for a reason is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from espalier_pipeline.cluster import driver as driver_module
from espalier_pipeline.cluster import submitting
from espalier_pipeline.cluster.access import Installation
from espalier_pipeline.cluster.driver import AGAIN, Driver
from espalier_pipeline.cluster.segments import Segment, outcome_path
from espalier_pipeline.cluster.submitting import driver_job, ended
from espalier_runtime import shelf
from espalier_runtime.store import Store
from espalier_sdk.errors import ClusterError, DataError, EspalierError

DEADLINES = {"preRunningDeadlineSeconds": 600, "activeDeadlineSeconds": 86400, "ttlSecondsAfterFinished": 600}
IDENTITY, UID = "triage-0123456789", "u-1"
INSTALLATION = Installation(
    driver={"spec": {"containers": [{"name": "driver", "image": "espalier/core:0.1.0"}]}},
    pools={"cpu": {"rayClusterSpec": {"headGroupSpec": {"template": {}}}}},
    settings={"release": "e", **DEADLINES},
)
DONE = {"exit_code": 0, "retryable": False, "result": {"run": "1"}}
MISSED = {"exit_code": 6, "retryable": False, "result": {"run": "1"}}
LOST = {"exit_code": 5, "retryable": True, "errors": [{"code": "x", "message": "a node went"}]}
WRONG = {"exit_code": 4, "retryable": False, "errors": [{"code": "x", "message": "no such column"}]}


class FakeJobs:
    """RayJobs that leave the next of some outcomes in the store, or die without a word where that is None."""

    def __init__(self, store: Store, outcomes: list[dict[str, Any] | None]) -> None:
        self.store, self.outcomes = store, outcomes
        self.made: list[str] = []
        self.deleted: list[str] = []

    def adopt_or_create(self, name: str, manifest: Mapping[str, Any], *, owner: str) -> FakeWatched:
        self.made.append(name)
        assert manifest["metadata"]["name"] == name
        words = str(manifest["spec"]["entrypoint"]).split()
        return FakeWatched(self, words[6], int(words[7]))

    def delete(self, name: str) -> None:
        self.deleted.append(name)


class FakeWatched:
    reason, may_retry = "OOMKilled", True

    def __init__(self, jobs: FakeJobs, segment: str, attempt: int) -> None:
        self.jobs, self.segment, self.attempt = jobs, segment, attempt

    def follow(self) -> Iterator[str]:
        yield f"log of {self.segment}\n"
        if (outcome := self.jobs.outcomes.pop(0)) is not None:
            left(self.jobs.store, self.segment, outcome, attempt=self.attempt)


def left(store: Store, segment: str, outcome: Mapping[str, Any], uid: str = UID, attempt: int = 0) -> None:
    shelf.put(store, outcome_path(IDENTITY, uid, segment, attempt), [json.dumps(outcome).encode()])


def driven(store: Store, *outcomes: dict[str, Any] | None) -> tuple[Driver, FakeJobs]:
    jobs = FakeJobs(store, list(outcomes))
    return Driver(IDENTITY, "ab", UID, INSTALLATION, store, jobs), jobs  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def test_the_last_segment_s_result_is_the_run_s(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    driver, jobs = driven(store, DONE, MISSED)
    assert driver.run([[Segment("data", "cpu")], [Segment("rest", "cpu")]]) == MISSED
    assert jobs.made == jobs.deleted == [f"{IDENTITY}-data", f"{IDENTITY}-rest"]
    assert capsys.readouterr().out == "log of data\nlog of rest\n"


def test_a_driver_that_starts_again_does_not_repeat_what_its_job_has_done(store: Store) -> None:
    left(store, "data", DONE)
    driver, jobs = driven(store, DONE)
    driver.run([[Segment("data", "cpu")], [Segment("rest", "cpu")]])
    assert jobs.made == [f"{IDENTITY}-rest"]
    assert jobs.deleted == [f"{IDENTITY}-data", f"{IDENTITY}-rest"]


def test_what_another_submission_left_counts_for_nothing(store: Store) -> None:
    left(store, "all", DONE, uid="u-0")
    driver, jobs = driven(store, DONE)
    driver.run([[Segment("all", "cpu")]])
    assert jobs.made == [f"{IDENTITY}-all"]


def test_what_died_and_what_may_pass_are_tried_again(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    driver, jobs = driven(store, None, LOST, DONE)
    assert driver.run([[Segment("all", "cpu")]]) == DONE
    assert jobs.made == [f"{IDENTITY}-all", f"{IDENTITY}-all-r1", f"{IDENTITY}-all-r2"]
    assert "died without a word: OOMKilled; once more" in capsys.readouterr().out


def test_after_the_last_try_the_reason_is_told(store: Store) -> None:
    driver, jobs = driven(store, *[None] * 6)
    with pytest.raises(ClusterError, match="died without a word: OOMKilled"):
        driver.run([[Segment("all", "cpu")]])
    assert len(jobs.made) == len(jobs.deleted) == 6


def test_a_driver_that_starts_again_goes_on_at_the_try_that_was_at_work(store: Store) -> None:
    left(store, "all", LOST)
    driver, jobs = driven(store, DONE)
    driver.run([[Segment("all", "cpu")]])
    assert jobs.made == [f"{IDENTITY}-all-r1"]
    assert jobs.deleted == [f"{IDENTITY}-all", f"{IDENTITY}-all-r1"]


def test_what_the_operator_has_refused_is_not_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeWatched, "may_retry", False)
    driver, jobs = driven(store, None)
    for _ in range(2):  # also by a driver that starts again, which has only what is left in the store
        with pytest.raises(ClusterError, match="died without a word"):
            driver.run([[Segment("all", "cpu")]])
    assert len(jobs.made) == 1


def test_what_failed_for_a_reason_is_not_tried_again(store: Store) -> None:
    driver, jobs = driven(store, WRONG)
    with pytest.raises(DataError, match="no such column"):
        driver.run([[Segment("all", "cpu")]])
    assert jobs.made == jobs.deleted == [f"{IDENTITY}-all"]


def test_the_job_of_a_driver_restarts_what_was_killed_and_leaves_what_failed() -> None:
    made = driver_job(IDENTITY, INSTALLATION, "ab")
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "espalier_pipeline.cluster.driver", IDENTITY, "ab"]
    disruption, final = made["spec"]["podFailurePolicy"]["rules"]
    assert disruption["action"] == "Ignore"
    assert 137 not in final["onExitCodes"]["values"]
    assert AGAIN not in final["onExitCodes"]["values"]
    assert {2, 3, 4, 5, 8} <= set(final["onExitCodes"]["values"])
    assert made["spec"]["template"]["metadata"]["labels"]["espalier.dev/submission"] == IDENTITY
    assert "command" not in INSTALLATION.driver["spec"]["containers"][0]


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        ([], None),
        ([{"type": "FailureTarget", "status": "True"}], None),
        ([{"type": "Failed", "status": "True", "message": "container driver exited with 4"}], "container driver"),
        ([{"type": "Complete", "status": "True"}], "Complete"),
    ],
)
def test_a_job_has_ended_when_the_api_says_so(conditions: list[dict[str, Any]], told: str | None) -> None:
    found = ended({"status": {"conditions": conditions}})
    assert found is None if told is None else found is not None and told in found


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ClusterError("the API server does not answer", code="unreachable", retryable=True), AGAIN),
        (ClusterError("a segment died", code="segment_died", retryable=True), ClusterError.exit_code),
        (DataError("no such column"), DataError.exit_code),
    ],
)
def test_another_pod_goes_on_where_the_api_server_was_away_and_only_there(
    error: EspalierError, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> dict[str, Any]:
        raise error

    monkeypatch.setenv("ESPALIER_STORE", str(tmp_path))
    monkeypatch.setattr(driver_module.Cluster, "of_pod", lambda: None)
    monkeypatch.setattr(driver_module, "_received", refuse)
    monkeypatch.setattr(driver_module.signal, "signal", lambda *_: None)
    assert driver_module.main(IDENTITY, "ab") == code


@pytest.mark.parametrize(("fresh", "whole", "sent"), [(True, False, True), (False, False, True), (False, True, False)])
def test_who_submits_the_same_again_sends_what_the_first_did_not(
    fresh: bool, whole: bool, sent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mails.csv").write_text("text,label\nrose,garden\ncard,money\n", encoding="utf-8")
    (tmp_path / "espalier.yaml").write_text(
        "name: triage\n"
        "objective: {task: {name: classification, config: {text: text, target: label}}, metric: macro_f1}\n"
        "data: {mails: {sources: [{name: files, config: {paths: [mails.csv]}}]}}\n"
        "candidates: {tiny: {strategy: from-scratch}}\n",
        encoding="utf-8",
    )
    bundles: list[int] = []
    monkeypatch.setattr(submitting.Cluster, "of_user", lambda namespace, context=None: None)
    monkeypatch.setattr(submitting.Installation, "find", lambda cluster, release=None: INSTALLATION)
    monkeypatch.setattr(submitting.Job, "begin", lambda self, installation, sha256: fresh)
    monkeypatch.setattr(submitting.Job, "has", lambda self, sha256: whole)
    monkeypatch.setattr(submitting.Job, "send", lambda self, file, sha256: bundles.append(file.stat().st_size))
    assert submitting.submit(tmp_path / "espalier.yaml", namespace="models", detach=True) == 0
    assert bool(bundles) == sent
