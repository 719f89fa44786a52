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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espalier_runtime import shelf
from espalier_runtime.specs import load_spec
from espalier_runtime.store import Store
from espalier_sdk.errors import ClusterError, DataError, EspalierError, Problem

from espalier_pipeline.children import error_of
from espalier_pipeline.cluster.access import Cluster, Installation, asking
from espalier_pipeline.cluster.rayjobs import RayJobs, Watched
from espalier_pipeline.cluster.segments import Segment, bundle_path, job_name, outcome_path, ray_job, waves
from espalier_pipeline.commands.printing import print_problems
from espalier_pipeline.packing import unbundle
from espalier_pipeline.places import Places

RESULT = "espalier-result "  # the line of the log that carries the result; `submit` takes it out again
RECEIVE_SECONDS = 900.0
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
        _print_result({"errors": [problem.to_json() for problem in error.problems]})
        return error.exit_code
    _print_result(outcome["result"])
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
        retries = int(self.installation.settings.get("retries", 5))
        for attempt in range(retries + 1):
            name = job_name(self.identity, segment, attempt)
            if done := self._outcome(segment):
                self.jobs.delete(name)  # a driver that was killed left it, with the CPUs that it holds
                return done
            watched = self._make(name, segment, attempt)
            for text in watched.follow():
                self._print(segment, text)
            outcome = self._outcome(segment) or self._left(segment)
            self.jobs.delete(name)
            if outcome is not None and not outcome.get("errors"):
                return outcome
            error = self._error(segment, outcome, watched.reason)
            if not error.retryable or attempt == retries:
                raise error
            self._print(segment, f"{error.problems[0].message}; once more\n")
        raise AssertionError("unreachable")

    def _make(self, name: str, segment: Segment, attempt: int) -> Watched:
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": self.identity,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }
        manifest = ray_job(
            self.identity, segment, attempt, installation=self.installation, owner=owner, sha256=self.sha256
        )
        return self.jobs.adopt_or_create(name, manifest, owner=self.uid)

    def _outcome(self, segment: Segment) -> dict[str, Any] | None:
        """Returns how a segment ended, where it came to a result."""
        left = self._left(segment)
        return left if left is not None and not left.get("errors") else None

    def _left(self, segment: Segment) -> dict[str, Any] | None:
        text = shelf.get(self.store, outcome_path(self.identity, self.uid, segment.name))
        return None if text is None else dict(json.loads(text))

    def _error(self, segment: Segment, outcome: Mapping[str, Any] | None, reason: str | None) -> EspalierError:
        if outcome is None:
            return ClusterError(
                f"segment {segment.name} died without a word{f': {reason}' if reason else ''}",
                code="segment_died",
                retryable=True,
                remedy="what was complete is not repeated; submit it again",
            )
        problems = tuple(Problem(**problem) for problem in outcome["errors"])
        return error_of(int(outcome["exit_code"]), problems, retryable=bool(outcome["retryable"]))

    def _print(self, segment: Segment, text: str) -> None:
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


def _print_result(document: Mapping[str, Any]) -> None:
    print(RESULT + json.dumps(document, default=str), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
