"""`submit -n NAMESPACE`: a driver's Job in the cluster, the user's files sent to it, and its log followed.

Needs nothing but a kubeconfig. The Job's name derives from what is sent: the same again adopts the one that is there.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from espalier_runtime.plugins import Plugins
from espalier_runtime.specs.reading import choices_of
from espalier_sdk.errors import EXIT_INTERRUPTED, ClusterError, DataError

from espalier_pipeline.cluster.access import Cluster, Installation, asking, events_of, plain, status_of
from espalier_pipeline.cluster.carried import Carried
from espalier_pipeline.cluster.pending import why_refused, why_waiting
from espalier_pipeline.cluster.receive import RECEIVED
from espalier_pipeline.cluster.segments import LABEL, identity_of, waves
from espalier_pipeline.commands.printing import print_next
from espalier_pipeline.packing import SUBMISSIONS, bundle, pack, write_request
from espalier_pipeline.places import Places
from espalier_pipeline.reading import load_checked

MOST_BYTES = 500 * 2**20
KEPT_SECONDS = 7 * 24 * 3600
_CONTAINER = "driver"
_RESTARTS = 20  # of a driver that was killed, which starts where it was
_FINAL = (1, 2, 3, 4, 5, 6, 7, 8)  # exit codes after which another try would end the same
_START_SECONDS = 600.0
_AWAY_SECONDS = 60.0  # of an API server that does not answer while a log is followed
_STEP_SECONDS = 1.0
_CHUNK = 1 << 16


def submit(
    path: Path,
    *,
    namespace: str,
    context: str | None = None,
    release: str | None = None,
    detach: bool = False,
    overrides: Sequence[str] = (),
    as_json: bool = False,
) -> int:
    """Submits a pipeline, follows its log, and returns the exit code of what it came to."""
    spec, document = load_checked(path, overrides=overrides)
    plugins = Plugins()
    cluster = Cluster.of_user(namespace, context=context)
    installation = Installation.find(cluster, release=release)
    waves(spec, installation)  # a pool that there is not is told here, before anything is sent
    with tempfile.TemporaryDirectory(prefix="espalier-submit-") as scratch:
        folder, sent = Path(scratch) / "sent", Path(scratch) / "sent.tar.gz"
        folder.mkdir()
        pack(document, folder)
        uses = {(group, choice.name) for _, group, choice in choices_of(spec)}
        told = [plugins.use(group, name).model_dump(mode="json") for group, name in sorted(uses)]
        write_request(folder, {"spec": document.path.name, "overrides": list(overrides), "plugins": told})
        sha256 = bundle(folder, sent)
        if (size := sent.stat().st_size) > MOST_BYTES:
            raise DataError(
                f"the files that the spec names make {size / 2**20:.0f} MiB, more than can be sent",
                code="too_large",
                given=size,
                accepted=f"up to {MOST_BYTES // 2**20} MiB",
                remedy="put the data on an object store and name them by their s3:// address",
            )
        identity = identity_of(spec.name, sha256)
        job = Job(cluster, identity)
        if job.begin(installation, sha256) or not job.has(sha256):
            job.send(sent, sha256)
    print(f"job              {identity} in {namespace}", file=sys.stderr)
    if detach:
        if as_json:
            print(json.dumps({"job": identity, "namespace": namespace}))
        print_next(shlex.join(["espalier", "logs", identity, "-f", "-n", namespace]))
        return 0
    return follow(job, home=Places.of(path).home, as_json=as_json)


def follow(job: Job, *, home: Path, as_json: bool = False) -> int:
    """Prints a driver's log until its Job ends, keeps the report in the home, and returns the exit code.

    Ctrl-C leaves the Job running.
    """
    carried = Carried()
    try:
        for line in job.lines():
            if not carried.takes(line):
                print(line, file=sys.stderr if as_json else sys.stdout, flush=True)
    except KeyboardInterrupt:
        namespace = job.cluster.namespace
        print(f"\nleft running: espalier logs {job.name} -f -n {namespace}", file=sys.stderr)
        return EXIT_INTERRUPTED
    report = carried.write_report(folder_of(job, home))
    if as_json and carried.result is not None:
        print(json.dumps(carried.result))
    elif report:
        print(f"{'report':<16} {report}")
    code = job.exit_code()
    if not as_json:
        print_next(shlex.join(["espalier", "runs", job.name, "-n", job.cluster.namespace]))
    return code


def folder_of(job: Job, home: Path) -> Path:
    """Returns where a home keeps what came back from a submission."""
    return home / SUBMISSIONS / job.name


class Job:
    """The Job of one submission's driver."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name

    def get(self) -> dict[str, Any] | None:
        """Returns the Job as the API writes it, or None where there is none."""
        try:
            with asking(f"Job {self.name}"):
                return dict(plain(self.cluster.batch.read_namespaced_job(self.name, self.cluster.namespace)))
        except ClusterError as error:
            if status_of(error) == 404:
                return None
            raise

    def begin(self, installation: Installation, sha256: str) -> bool:
        """Makes the Job; returns False where the same submission is at work already.

        One that has ended makes room: the store tells the new driver what is done.
        """
        found = self.get()
        if found is not None and ended(found) is None:
            print("adopted: the same pipeline is running there already", file=sys.stderr)
            return False
        if found is not None:
            self.delete()
            deadline = time.monotonic() + _START_SECONDS
            while self.get() is not None:
                if time.monotonic() > deadline:
                    raise ClusterError(f"Job {self.name} of an earlier submission does not go away", code="leftover")
                time.sleep(_STEP_SECONDS)
        with asking(f"namespace {self.cluster.namespace}"):
            self.cluster.batch.create_namespaced_job(
                self.cluster.namespace, driver_job(self.name, installation, sha256)
            )
        return True

    def has(self, sha256: str) -> bool:
        """Returns whether the user's files came whole: who submitted before may have gone away while it sent them."""
        answered = self._receive(sha256)
        return answered is None or RECEIVED in answered.splitlines()

    def send(self, file: Path, sha256: str) -> None:
        """Streams the user's files into the driver's pod, once that runs."""
        answered = self._receive(sha256, str(file.stat().st_size), stdin=file)
        if answered is not None and RECEIVED not in answered.splitlines():
            raise ClusterError(
                f"the driver's pod did not take the files: {answered.strip()[-300:] or 'it said nothing'}",
                code="not_sent",
                retryable=True,
                remedy="submit it again: what was sent whole is not lost",
            )

    def _receive(self, sha256: str, *size: str, stdin: Path | None = None) -> str | None:
        """Returns what the driver's pod answers; None where the Job has ended, of which its log tells."""
        command = ["python", "-m", "espalier_pipeline.cluster.receive", self.name, sha256, *size]
        pod = self._running_pod()
        return None if pod is None else run_in_pod(self.cluster, pod, command, stdin=stdin)

    def pods(self) -> list[dict[str, Any]]:
        """Returns the driver's pods, the oldest first."""
        with asking(f"pods of Job {self.name}"):
            found = plain(
                self.cluster.core.list_namespaced_pod(
                    self.cluster.namespace, label_selector=f"batch.kubernetes.io/job-name={self.name}"
                )
            )["items"]
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def lines(self) -> Iterator[str]:
        """Yields the lines of the driver's log, and sentences on what it waits for, until the Job has ended."""
        shown: dict[str, int] = {}
        told: set[str] = set()
        answered = time.monotonic()
        while True:
            try:
                job = self.get()
                for pod in self.pods():
                    yield from self._new_lines(pod, shown, told)
                if job is None or ended(job) is not None:
                    return
                answered = time.monotonic()
            except ClusterError as error:
                if not error.retryable or time.monotonic() - answered > _AWAY_SECONDS:
                    raise
            time.sleep(_STEP_SECONDS)

    def _new_lines(self, pod: Mapping[str, Any], shown: dict[str, int], told: set[str]) -> Iterator[str]:
        name = pod["metadata"]["name"]
        if pod["status"]["phase"] == "Pending":
            yield from (f"  {sentence}" for sentence in self._news(pod, told))
            return
        text = self.log(name)
        whole = text.rfind("\n") + 1  # the last line may still grow; all that a driver prints ends its line
        yield from text[shown.get(name, 0) : whole].splitlines()
        shown[name] = max(shown.get(name, 0), whole)

    def exit_code(self) -> int:
        """Returns the exit code of the driver's last pod; ClusterError where the Job ended without one."""
        job = self.get()
        if job is None:
            raise ClusterError(f"Job {self.name} was deleted", code="stopped", remedy="submit it again to go on")
        for pod in reversed(self.pods()):
            for container in pod["status"].get("containerStatuses") or ():
                code = ((container.get("state") or {}).get("terminated") or {}).get("exitCode")
                if code is not None:
                    return int(code)
        raise ClusterError(
            f"Job {self.name} ended without a result: {ended(job) or 'no reason given'}",
            code="job_failed",
            remedy="submit it again: what was complete is not repeated",
        )

    def delete(self) -> None:
        """Deletes the Job, and with it what it owns: its pods and RayJobs."""
        with asking(f"Job {self.name}"):
            self.cluster.batch.delete_namespaced_job(self.name, self.cluster.namespace, propagation_policy="Background")

    def _running_pod(self) -> str | None:
        deadline, told = time.monotonic() + _START_SECONDS, set[str]()
        while time.monotonic() < deadline:
            job, pods = self.get(), self.pods()
            if job is None or ended(job) is not None:
                return None
            for pod in pods:
                if pod["status"]["phase"] == "Running":
                    return str(pod["metadata"]["name"])
                for sentence in self._news(pod, told):
                    print(f"  {sentence}", file=sys.stderr)
            if not pods and (why := self._refused()) and why not in told:
                told.add(why)
                print(f"  {why}", file=sys.stderr)
            time.sleep(_STEP_SECONDS)
        raise ClusterError(
            f"the driver's pod does not start: {'; '.join(sorted(told)) or 'no reason is known'}",
            code="pending",
            remedy=f"kubectl -n {self.cluster.namespace} describe job {self.name}",
        )

    def _refused(self) -> str | None:
        job = self.get()
        return why_refused(events_of(self.cluster, job["metadata"]["uid"])) if job else None

    def _news(self, pod: Mapping[str, Any], told: set[str]) -> Iterator[str]:
        sentence = why_waiting(pod, events_of(self.cluster, pod["metadata"]["uid"]))
        if sentence and sentence not in told:
            told.add(sentence)
            yield sentence

    def log(self, pod: str) -> str:
        """Returns what a pod of the driver has printed so far; empty while its container starts."""
        read = self.cluster.core.read_namespaced_pod_log
        try:
            with asking(f"log of {pod}"):
                return str(read(pod, self.cluster.namespace, container=_CONTAINER))
        except ClusterError as error:
            if status_of(error) in (400, 404):  # its container starts, or is gone
                return ""
            raise


def driver_job(name: str, installation: Installation, sha256: str) -> dict[str, Any]:
    """Returns the Job of a driver, its pod as the chart has it."""
    template = json.loads(json.dumps(installation.driver))
    labels = {LABEL: name}
    template.setdefault("metadata", {}).setdefault("labels", {}).update(labels)
    container = next(one for one in template["spec"]["containers"] if one["name"] == _CONTAINER)
    container["command"] = ["python", "-m", "espalier_pipeline.cluster.driver", name, sha256]
    template["spec"]["restartPolicy"] = "Never"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "backoffLimit": _RESTARTS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": _CONTAINER, "operator": "In", "values": list(_FINAL)},
                    },
                ]
            },
            "template": template,
        },
    }


def ended(job: Mapping[str, Any]) -> str | None:
    """Returns how a Job ended, in the API's words, or None while it works."""
    for condition in job.get("status", {}).get("conditions") or ():
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return str(condition.get("message") or condition["type"])
    return None


@contextlib.contextmanager
def _turning(kind: type[Exception]) -> Iterator[None]:
    """Turns a connection that breaks into an OSError, as every other one is."""
    try:
        yield
    except kind as error:
        raise ConnectionError(f"the connection to the pod broke: {error}") from error


def run_in_pod(
    cluster: Cluster, pod: str, command: Sequence[str], *, container: str = _CONTAINER, stdin: Path | None = None
) -> str:
    """Runs a command in a container, sends it a file, and returns all that it printed."""
    from kubernetes.stream import stream
    from websocket import WebSocketException

    with asking(f"pod {pod}"), _turning(WebSocketException):
        channel = stream(
            cluster.core.connect_get_namespaced_pod_exec,
            pod,
            cluster.namespace,
            container=container,
            command=list(command),
            stdin=stdin is not None,
            stdout=True,
            stderr=True,
            tty=False,
            binary=True,
            _preload_content=False,
        )
        if stdin is not None:
            with stdin.open("rb") as content:
                while chunk := content.read(_CHUNK):
                    channel.write_stdin(chunk)
        told = b""
        while channel.is_open():
            channel.update(timeout=1)
            told += channel.read_stdout() if channel.peek_stdout() else b""
            told += channel.read_stderr() if channel.peek_stderr() else b""
        channel.close()
    return told.decode("utf-8", errors="replace")
