"""RayJobs of the driver: made or adopted, followed through their log to the end, and deleted."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from espalier_sdk.errors import ClusterError

from espalier_pipeline.cluster.access import OPERATOR, Cluster, asking, events_of, plain, status_of
from espalier_pipeline.cluster.pending import why_refused, why_waiting

_KIND: dict[str, str] = {"group": "ray.io", "version": "v1", "plural": "rayjobs"}
_STEP_SECONDS = 2.0
_FINAL_REASONS = ("DeadlineExceeded", "PreRunningDeadlineExceeded", "ValidationFailed")  # again would end the same
_GONE_SECONDS = 180.0
_AWAY_SECONDS = 120.0  # of an API server that does not answer: the driver outlives its restart
_LAST_LOG_SECONDS = 10.0
_OF_RAY = re.compile(r" job_manager\.py:|^Running entrypoint for job ")  # how Ray starts a job is not the run's log
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class RayJobs:
    """The RayJobs of a namespace."""

    cluster: Cluster

    def adopt_or_create(self, name: str, manifest: Mapping[str, Any], *, owner: str) -> Watched:
        """Returns a RayJob that is there already, or makes it; one of an owner that is gone is waited out."""
        deadline = time.monotonic() + _GONE_SECONDS
        while (found := self.get(name)) is not None:
            owners = {one["uid"] for one in found["metadata"].get("ownerReferences", ())}
            if owner in owners and not found["metadata"].get("deletionTimestamp"):
                return Watched(self, name)
            if time.monotonic() > deadline:
                raise ClusterError(f"RayJob {name} of an earlier submission does not go away", code="leftover")
            time.sleep(_STEP_SECONDS)
        create = self.cluster.custom.create_namespaced_custom_object
        try:
            made = patiently(
                f"RayJob {name}", lambda: create(namespace=self.cluster.namespace, body=dict(manifest), **_KIND)
            )
        except ClusterError as error:
            if status_of(error) != 409:  # made by a call whose answer was lost
                raise
        else:
            if made is None:
                raise ClusterError("the cluster knows no RayJobs", code="kuberay", remedy=OPERATOR)
        return Watched(self, name)

    def get(self, name: str, *, plural: str = "rayjobs") -> dict[str, Any] | None:
        """Returns a RayJob, or None where there is none."""
        kind, find = {**_KIND, "plural": plural}, self.cluster.custom.get_namespaced_custom_object
        found = patiently(f"{plural}/{name}", lambda: find(namespace=self.cluster.namespace, name=name, **kind))
        return None if found is None else dict(found)

    def delete(self, name: str) -> None:
        """Lets a RayJob and its pods go; one that is gone already is none to worry about."""
        delete, how = self.cluster.custom.delete_namespaced_custom_object, {"propagation_policy": "Background"}
        patiently(f"RayJob {name}", lambda: delete(namespace=self.cluster.namespace, name=name, **how, **_KIND))

    def pods(self, ray_cluster: str) -> list[dict[str, Any]]:
        """Returns the pods of a RayCluster as the API writes them."""
        selector, find = f"ray.io/cluster={ray_cluster}", self.cluster.core.list_namespaced_pod
        found = patiently("pods", lambda: find(self.cluster.namespace, label_selector=selector))
        return [] if found is None else list(plain(found)["items"])


@dataclass
class Watched:
    """A RayJob that is followed; `reason` says at its end what the operator knows, or what was seen to be lost."""

    jobs: RayJobs
    name: str
    reason: str | None = None
    may_retry: bool = True
    _seen: int = 0
    _told: set[str] = field(default_factory=set)
    _head: str | None = None

    def follow(self) -> Iterator[str]:
        """Yields the job's log as it grows, and a sentence on what it waits for, until it ends or is lost."""
        while True:
            found = self.jobs.get(self.name)
            if found is None:
                self.reason = "its RayJob was deleted"
                return
            status = found.get("status") or {}
            stage, ended = status.get("jobDeploymentStatus", ""), status.get("jobStatus") in _ENDED
            if stage == "Running" or ended:
                yield from self._log(status)
            elif stage in ("", "Initializing", "Waiting", "New"):
                yield from self._waiting(found)
            elif stage in ("Suspended", "Suspending"):
                yield from self._once([f"{self.name} waits: a queue has suspended it"])
            if ended or stage in ("Complete", "Failed", "ValidationFailed"):
                self.reason = status.get("message") or status.get("reason")
                self.may_retry = status.get("reason") not in _FINAL_REASONS and stage != "ValidationFailed"
                yield from self._rest(status)
                return
            if self._lost(status):
                self.reason = "its head pod was lost"
                return
            time.sleep(_STEP_SECONDS)

    def _waiting(self, found: Mapping[str, Any]) -> Iterator[str]:
        def events(uid: str) -> list[dict[str, Any]]:
            return patiently("events", partial(events_of, self.jobs.cluster, uid)) or []

        sentences = [why_refused(events(found["metadata"]["uid"]))]
        if name := (found.get("status") or {}).get("rayClusterName"):
            if made := self.jobs.get(name, plural="rayclusters"):
                sentences.append(why_refused(events(made["metadata"]["uid"])))
            sentences += [why_waiting(pod, events(pod["metadata"]["uid"])) for pod in self.jobs.pods(name)]
        yield from self._once(sentences)

    def _once(self, sentences: Iterable[str | None]) -> Iterator[str]:
        for sentence in sentences:
            if sentence and sentence not in self._told:
                self._told.add(sentence)
                yield f"  {sentence}\n"

    def _log(self, status: Mapping[str, Any]) -> Iterator[str]:
        text = self._read(status)
        whole = text.rfind("\n") + 1  # the last line may still grow
        if whole > self._seen:
            lines = text[self._seen : whole].splitlines(keepends=True)
            self._seen = whole
            yield "".join(line for line in lines if not _OF_RAY.search(line))

    def _rest(self, status: Mapping[str, Any]) -> Iterator[str]:
        """Yields what is left of the log of a job that has ended, while its head still answers."""
        deadline = time.monotonic() + _LAST_LOG_SECONDS
        quiet = False
        while not quiet and time.monotonic() < deadline:
            before = self._seen
            yield from self._log(status)
            quiet = self._seen == before
            time.sleep(0.5)

    def _read(self, status: Mapping[str, Any]) -> str:
        """Returns the log so far by Ray's Jobs API; empty while the head does not answer."""
        from ray.job_submission import JobSubmissionClient

        cluster, job = status.get("rayClusterName"), status.get("jobId")
        if not cluster or not job:
            return ""
        try:
            client = JobSubmissionClient(f"http://{cluster}-head-svc.{self.jobs.cluster.namespace}.svc:8265")
            return str(client.get_job_logs(job))
        except (OSError, RuntimeError, ValueError):
            return ""

    def _lost(self, status: Mapping[str, Any]) -> bool:
        """Tells whether the pod that the job ran in is gone or another: the operator would start it there anew."""
        cluster = status.get("rayClusterName")
        if not cluster or status.get("jobDeploymentStatus") != "Running":
            return False
        heads = [one for one in self.jobs.pods(cluster) if one["metadata"]["labels"].get("ray.io/node-type") == "head"]
        marks = sorted(_mark(one) for one in heads if "deletionTimestamp" not in one["metadata"])
        if self._head is None:
            self._head = marks[0] if marks else None
            return False
        return self._head not in marks


def patiently(what: str, ask: Callable[[], Any]) -> Any:
    """Returns what the API server answers, None for what is not there; one that is away for a while is asked again."""
    deadline = time.monotonic() + _AWAY_SECONDS
    while True:
        try:
            with asking(what):
                return ask()
        except ClusterError as error:
            if status_of(error) == 404:
                return None
            if not error.retryable or time.monotonic() > deadline:
                raise
        time.sleep(_STEP_SECONDS)


def _mark(pod: Mapping[str, Any]) -> str:
    """Returns what changes when the pod is another, or its container was started again."""
    restarts = sum(one.get("restartCount", 0) for one in pod.get("status", {}).get("containerStatuses") or ())
    return f"{pod['metadata']['uid']} {restarts}"
