"""`python -m espalier_pipeline.cluster.driver IDENTITY SHA256`: starts the segments of a submission and watches them.

Holds no state: store and RayJobs tell what is done, so its pod can be killed and started again. Loads no plugin.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espalier_runtime import shelf
from espalier_runtime.specs import load_spec
from espalier_runtime.store import Store
from espalier_sdk.errors import ClusterError, DataError, EspalierError, Problem

from espalier_pipeline.children import error_of
from espalier_pipeline.cluster.access import API_CODES, Cluster, Installation, asking
from espalier_pipeline.cluster.carried import print_carried
from espalier_pipeline.cluster.rayjobs import RayJobs, Watched
from espalier_pipeline.cluster.segments import Segment, bundle_path, job_name, outcome_path, ray_job, waves
from espalier_pipeline.commands.printing import print_problems
from espalier_pipeline.packing import unbundle
from espalier_pipeline.places import Places

AGAIN = 75  # as sysexits' EX_TEMPFAIL: the API server was away, and another pod may go on
RECEIVE_SECONDS = 7200.0  # for 500 MiB over a slow line
_RETRIES = 5
_STEP_SECONDS = 1.0
_TERMINATED = 128 + signal.SIGTERM


def main(identity: str, sha256: str) -> int:
    """Drives a submission to its end; returns its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(_TERMINATED))  # at once: there is no state to save
    cluster = Cluster.of_pod()
    try:
        with tempfile.TemporaryDirectory(prefix="espalier-driver-") as folder:
            store = Store.open(Places.of().store)
            request = _received(store, identity, sha256, Path(folder))
            spec, _ = load_spec(Path(folder) / "work" / request["spec"], overrides=request["overrides"])
            with asking(f"Job {identity}"):
                uid = cluster.batch.read_namespaced_job(identity, cluster.namespace).metadata.uid
            installation = Installation.mounted()
            driver = Driver(identity, sha256, uid, installation, store, RayJobs(cluster))
            outcome = driver.run(waves(spec, installation))
    except EspalierError as error:
        print_problems(error.problems)
        print_carried({"errors": [problem.to_json() for problem in error.problems]}, None)
        again = error.retryable and error.problems[0].code in API_CODES
        return AGAIN if again else error.exit_code
    print_carried(outcome["result"], outcome.get("report"))
    return int(outcome["exit_code"])


@dataclass
class Driver:
    """One submission at work."""

    identity: str
    sha256: str
    uid: str
    installation: Installation
    store: Store
    jobs: RayJobs
    _printing: threading.Lock = field(default_factory=threading.Lock)

    def run(self, plan: Sequence[Sequence[Segment]]) -> dict[str, Any]:
        """Does all segments, wave after wave, and returns how the last one ended; raises what one failed with."""
        outcome: dict[str, Any] = {}
        for wave in plan:
            with ThreadPoolExecutor(max_workers=len(wave)) as pool:
                outcome = list(pool.map(self._segment, wave))[-1]
        return outcome

    def _segment(self, segment: Segment) -> dict[str, Any]:
        for attempt in range(_RETRIES + 1):
            name = job_name(self.identity, segment, attempt)
            left = self._left(segment, attempt)
            if left is None:
                watched = self._make(name, segment, attempt)
                for text in watched.follow():
                    self._print(text)
                left = self._left(segment, attempt) or self._died(segment, attempt, watched)
            self.jobs.delete(name)  # also one whose end a driver that was killed did not see: it holds its CPUs
            if not left.get("errors"):
                return left
            problems = tuple(Problem(**problem) for problem in left["errors"])
            error = error_of(int(left["exit_code"]), problems, retryable=bool(left["retryable"]))
            if not error.retryable or attempt == _RETRIES:
                raise error
            self._print(f"{error.problems[0].message}; once more\n")
        raise AssertionError("unreachable")

    def _died(self, segment: Segment, attempt: int, watched: Watched) -> dict[str, Any]:
        """Leaves for a driver that starts again that an attempt came to nothing, and returns that."""
        problem = Problem(
            code="segment_died",
            message=f"segment {segment.name} died without a word{f': {watched.reason}' if watched.reason else ''}",
            remedy="what was complete is not repeated; submit it again",
        )
        left = {"exit_code": ClusterError.exit_code, "retryable": watched.may_retry, "errors": [problem.to_json()]}
        shelf.put(self.store, self._path(segment, attempt), [json.dumps(left).encode()])
        return left

    def _make(self, name: str, segment: Segment, attempt: int) -> Watched:
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": self.identity,
            "uid": self.uid,
            "controller": False,  # a queue must see the RayJob for itself, not as a part of the Job
            "blockOwnerDeletion": False,
        }
        manifest = ray_job(
            self.identity, segment, attempt, installation=self.installation, owner=owner, sha256=self.sha256
        )
        return self.jobs.adopt_or_create(name, manifest, owner=self.uid)

    def _left(self, segment: Segment, attempt: int) -> dict[str, Any] | None:
        text = shelf.get(self.store, self._path(segment, attempt))
        return None if text is None else dict(json.loads(text))

    def _path(self, segment: Segment, attempt: int) -> str:
        return outcome_path(self.identity, self.uid, segment.name, attempt)

    def _print(self, text: str) -> None:
        with self._printing:
            print(text, end="", flush=True)


def _received(store: Store, identity: str, sha256: str, folder: Path) -> dict[str, Any]:
    """Waits until the user's files are in the store, and returns how the pipeline was asked for."""
    sent, deadline = folder / "sent.tar.gz", time.monotonic() + RECEIVE_SECONDS
    while not shelf.fetch(store, bundle_path(identity), sent, sha256=sha256):
        if time.monotonic() > deadline:
            raise DataError("nothing was sent", code="absent", file=store.uri, remedy="submit it again")
        time.sleep(_STEP_SECONDS)
    return unbundle(sent, folder / "work")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
