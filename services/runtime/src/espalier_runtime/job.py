"""A stage at work: what its `run` gets, and how one request is found, made and published.

Knows nothing about what any stage does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from espalier_sdk.artifacts import Manifest, PluginNeed
from espalier_sdk.errors import ClusterError, EspalierError

from espalier_runtime.plugins import Plugins
from espalier_runtime.progress import Progress
from espalier_runtime.ray_session import Session
from espalier_runtime.request import StageRequest
from espalier_runtime.specs.models import Spec
from espalier_runtime.store import Attempt, OpenArtifact, Store, disk_error


@dataclass(frozen=True)
class Job:
    """What a stage's `run` gets. What lies in `out` when it returns is the artifact."""

    spec: Spec
    request: StageRequest
    inputs: Mapping[str, OpenArtifact]
    out: Path
    beside: Path
    plugins: Plugins
    session: Session
    progress: Progress
    workplace: Workplace
    attempt: Attempt | None = None
    afterwards: list[Callable[[], None]] = field(default_factory=list)  # called when the artifact is published

    @property
    def beside_uri(self) -> str:
        """Returns where a user finds `beside` when the stage has ended, well or not."""
        return self.attempt.beside_uri if self.attempt else str(self.beside)

    def make(self, request: StageRequest, run: Run) -> OpenArtifact:
        """Returns the artifact of another request, made now where it is not there yet."""
        ref = perform(request, run, self.workplace)[0].ref()
        if self.attempt:
            self.attempt.read(ref)
        return self.workplace.store.open_artifact(ref)


Run = Callable[[Job], dict[str, Any]]


@dataclass(frozen=True)
class Stage:
    """One stage of a service: the name that requests carry, and its function."""

    name: str
    run: Run


@dataclass(frozen=True)
class Workplace:
    """Where requests are worked on: spec, store, home, plugins and Ray."""

    spec: Spec
    store: Store
    home: Path
    plugins: Plugins
    session: Session


def perform(request: StageRequest, run: Run, workplace: Workplace) -> tuple[Manifest, bool]:
    """Returns the manifest that answers a request, and whether it was there already.

    One process at a time works on a request; who waited finds it done. A failing run leaves `failure.json`
    in its attempt and nothing else.
    """
    store, digest = workplace.store, request.digest()
    progress = Progress(request.candidate or request.stage)
    with (
        contextlib.closing(progress),
        request_lock(workplace.home, digest, on_wait=lambda: progress.note("another process works on this: waiting")),
    ):
        found = None if request.read_again else store.find_request(digest)
        if found is not None:
            return store.manifest(found), True
        inputs = {role: store.open_artifact(ref) for role, ref in request.inputs.items()}
        attempt = store.begin(digest, reads=request.inputs.values())
        started = time.time()
        job = Job(
            spec=workplace.spec,
            request=request,
            inputs=inputs,
            out=attempt.folder,
            beside=attempt.beside,
            plugins=workplace.plugins,
            session=workplace.session,
            progress=progress,
            workplace=workplace,
            attempt=attempt,
        )
        try:
            metrics = run(job)
            manifest = attempt.publish(
                kind=request.kind,
                name=request.name,
                inputs=tuple(request.inputs.values()),
                what=request.what,
                plugins=request.plugins,
                requires=_requires(request),
                metrics=metrics,
                provenance=_provenance(request, started),
            )
            for finish in job.afterwards:
                finish()
        except OSError as error:
            failure = failure_of(error, store.uri)
            _leave_failure(attempt, failure)
            raise failure from error
        except Exception as error:
            told = error if isinstance(error, EspalierError) else EspalierError(f"{type(error).__name__}: {error}")
            _leave_failure(attempt, told)
            raise
        finally:
            attempt.close()
        return manifest, False


@contextmanager
def request_lock(home: Path, digest: str, *, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the one right of this machine to work on a request; the kernel frees it when the holder dies.

    `on_wait` is called once where another process holds it.
    """
    folder = home / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / digest[:32]).open("w")
    except OSError as error:
        raise disk_error(error, str(folder)) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def failure_of(error: OSError, place: str) -> EspalierError:
    """Returns the error for what a disk, or what a network, answered a stage."""
    if isinstance(error, ConnectionError | TimeoutError):
        return ClusterError(f"cannot be reached: {error}", code="unreachable", retryable=True, remedy="try again")
    return disk_error(error, place)


def _requires(request: StageRequest) -> tuple[PluginNeed, ...]:
    """Returns the plugins without which a model cannot be opened again; other kinds open without any."""
    if request.kind != "model":
        return ()
    groups = ("espalier.tasks", "espalier.peft_methods")
    return tuple(PluginNeed(group=use.group, name=use.name) for use in request.plugins if use.group in groups)


def _provenance(request: StageRequest, started: float) -> dict[str, Any]:
    return {
        "request": request.digest(),
        "components": request.components(),
        "started_at": started,
        "seconds": round(time.time() - started, 3),
        "python": platform.python_version(),
        "ray": _version("ray"),
        "host": platform.node(),
        "commit": os.environ.get("ESPALIER_COMMIT"),
        "image": os.environ.get("ESPALIER_IMAGE"),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _leave_failure(attempt: Attempt, error: EspalierError) -> None:
    record = {
        "code": error.problems[0].code,
        "retryable": error.retryable,
        "exit_code": error.exit_code,
        "errors": [problem.to_json() for problem in error.problems],
    }
    attempt.fail(json.dumps(record, indent=1, default=str))
