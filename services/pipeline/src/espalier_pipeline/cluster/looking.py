"""`runs`, `logs` and `stop` against a namespace: the drivers' Jobs that `submit` has made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from espalier_sdk.errors import SpecError

from espalier_pipeline.cluster.access import Cluster, asking, plain
from espalier_pipeline.cluster.carried import Carried
from espalier_pipeline.cluster.segments import LABEL
from espalier_pipeline.cluster.submitting import Job, ended, folder_of, follow


def submissions(cluster: Cluster) -> list[dict[str, Any]]:
    """Returns what was submitted, the newest first: job, state, started_at, finished_at, reason."""
    with asking(f"jobs of {cluster.namespace}"):
        jobs = plain(cluster.batch.list_namespaced_job(cluster.namespace, label_selector=LABEL))["items"]
    return sorted((describe(job) for job in jobs), key=lambda one: str(one["started_at"]), reverse=True)


def describe(job: dict[str, Any]) -> dict[str, Any]:
    """Returns how a submission stands."""
    status = job.get("status", {})
    if ended(job) is None:
        state = "running" if status.get("active") else "waiting"
    else:
        state = "done" if status.get("succeeded") else "failed"
    return {
        "job": job["metadata"]["name"],
        "state": state,
        "started_at": status.get("startTime") or job["metadata"]["creationTimestamp"],
        "finished_at": status.get("completionTime"),
        "reason": ended(job) if state == "failed" else None,
    }


def find(cluster: Cluster, begins: str) -> Job:
    """Returns the submission whose job is named so, or begins so; SpecError where none or several do."""
    names = [one["job"] for one in submissions(cluster) if one["job"].startswith(begins)]
    if begins in names:
        return Job(cluster, begins)
    if len(names) != 1:
        raise SpecError(
            f"{begins!r} names {len(names) or 'no'} submission{'s' if len(names) > 1 else ''}",
            code="unknown_run",
            given=begins,
            accepted=", ".join(names) or "none was submitted yet",
            remedy=f"`espalier runs -n {cluster.namespace}` lists them",
        )
    return Job(cluster, names[0])


def print_logs(job: Job, *, following: bool, home: Path) -> int:
    """Prints a driver's log as it is, or to the Job's end, keeps the report in the home, and returns the exit code."""
    if following:
        return follow(job, home=home)
    carried = Carried()
    for pod in job.pods():
        for line in job.log(pod["metadata"]["name"]).splitlines():
            if not carried.takes(line):
                print(line)
    if path := carried.write_report(folder_of(job, home)):
        print(f"{'report':<16} {path}")
    return 0


def stop(job: Job) -> None:
    """Ends a submission; what was complete stays in the store. SpecError where it has ended."""
    found = job.get()
    if found is None or ended(found) is not None:
        raise SpecError(f"{job.name} is not running", code="not_running", given=job.name)
    job.delete()
    print(f"{job.name} stopped; submitted again it goes on where it was", file=sys.stderr)


def render(found: list[dict[str, Any]]) -> str:
    """Returns submissions as a table."""
    if not found:
        return "nothing was submitted yet"
    rows = [(one["job"], one["state"], one["started_at"], one["reason"] or "") for one in found]
    return "\n".join(f"{job:<32} {state:<8} {at}  {reason}".rstrip() for job, state, at, reason in rows)
