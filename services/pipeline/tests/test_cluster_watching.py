"""A RayJob that is followed to its end, or to what it was lost by: suspended, refused, deleted, without its head."""

from __future__ import annotations

from typing import Any

import pytest
from espalier_pipeline.cluster import rayjobs
from espalier_pipeline.cluster.rayjobs import Watched

DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
RUNS = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "rayClusterName": "c"}


class ScriptedJobs:
    """RayJobs of which each look finds the next status and the next head; None is a RayJob that is gone."""

    def __init__(self, statuses: tuple[dict[str, Any] | None, ...], heads: tuple[str, ...]) -> None:
        self.statuses, self.heads = list(statuses), list(heads)

    def get(self, name: str) -> dict[str, Any] | None:
        status = self.statuses.pop(0)
        return None if status is None else {"metadata": {"uid": "u", "name": name}, "status": status}

    def pods(self, ray_cluster: str) -> list[dict[str, Any]]:
        head = self.heads.pop(0) if len(self.heads) > 1 else self.heads[0]
        return [{"metadata": {"uid": head, "labels": {"ray.io/node-type": "head"}}, "status": {}}]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rayjobs.time, "sleep", lambda seconds: None)


def followed(*statuses: dict[str, Any] | None, heads: tuple[str, ...] = ("a",)) -> tuple[Watched, list[str]]:
    watched = Watched(ScriptedJobs(statuses, heads), "triage-all")  # type: ignore[arg-type]
    return watched, list(watched.follow())


def test_a_job_that_a_queue_suspended_says_so_once_and_goes_on() -> None:
    suspended = {"jobDeploymentStatus": "Suspended"}
    watched, said = followed(suspended, suspended, RUNS, suspended, DONE)
    assert said == ["  triage-all waits: a queue has suspended it\n"]
    assert watched.may_retry


def test_what_the_operator_knows_of_the_end_is_kept() -> None:
    failed = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "exit status 1"}
    watched, _ = followed(RUNS, failed)
    assert (watched.reason, watched.may_retry) == ("exit status 1", True)


@pytest.mark.parametrize(
    "status",
    [
        {"jobDeploymentStatus": "ValidationFailed", "message": "a name too long"},
        {"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"},
    ],
)
def test_what_would_end_the_same_again_is_not_to_be_tried(status: dict[str, Any]) -> None:
    assert not followed(status)[0].may_retry


def test_a_job_that_was_deleted_is_lost() -> None:
    assert followed(RUNS, None)[0].reason == "its RayJob was deleted"


def test_a_head_that_is_another_has_lost_the_job() -> None:
    watched, _ = followed(RUNS, RUNS, RUNS, heads=("a", "a", "b"))
    assert (watched.reason, watched.may_retry) == ("its head pod was lost", True)
