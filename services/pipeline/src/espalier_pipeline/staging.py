"""Stages found in the store, or made by the commands of their services.

Knows nothing about the order of stages.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espalier_runtime.request import StageRequest
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef
from espalier_sdk.errors import EspalierError

from espalier_pipeline.children import RayHead, run_child
from espalier_pipeline.places import Places
from espalier_pipeline.records import RunRecord
from espalier_pipeline.view import View

_MODULES = {
    "ingest": "espalier_ingestion",
    "preprocess": "espalier_preprocessing",
    "base": "espalier_training",
    "tune": "espalier_training",
    "train": "espalier_training",
    "evaluate": "espalier_evaluation",
}
_WITHOUT_RAY = ("base",)


@dataclass
class Stages:
    """The stages of one run: those that are done are found, the others are started as child processes.

    `spec` is the run's own copy of what was asked, so that nobody's edit reaches a run that is at work.
    """

    spec: Path
    places: Places
    store: Store
    record: RunRecord
    view: View
    ray: RayHead
    done: list[dict[str, Any]] = field(default_factory=list)

    def make(
        self,
        request: StageRequest,
        *,
        candidate: str | None = None,
        spec: Path | None = None,
        label: str | None = None,
    ) -> ArtifactRef:
        """Returns the artifact of a request; `candidate` is for the service where the request itself names none.

        `spec` is the one that the request was made from, where that is not the run's own; `label` is what people are
        told, where that is not the artifact's name.
        """
        label = label or request.name
        started = time.monotonic()
        found = None if request.read_again else self.store.find_request(request.digest())
        if found is not None:
            self.note(request.stage, label, found, time.monotonic() - started, cached=True)
            return found
        arguments = self.common(request.stage, spec=spec)
        for option, value in (("--data", request.data), ("--candidate", candidate or request.candidate)):
            arguments += [option, value] if value else []
        for role, ref in request.inputs.items():
            arguments += ["--input", f"{role}={ref}"]
        self.view.stage_began(request.stage, label)
        document = self.attempt(request, arguments, with_ray=request.stage not in _WITHOUT_RAY)
        ref = ArtifactRef.parse(document["ref"])
        self.note(request.stage, label, ref, time.monotonic() - started, cached=bool(document["cached"]))
        return ref

    def attempt(self, request: StageRequest, arguments: Sequence[str], *, with_ray: bool) -> dict[str, Any]:
        """Runs a service's command and returns what it printed; one that died without a word is tried once more."""
        log = self.record.logs / f"{request.stage}-{request.name}.log"
        environment = self.ray.environment() if with_ray else {}
        for last in (False, True):
            try:
                return run_child(
                    _MODULES[request.stage],
                    arguments,
                    log=log,
                    environment={**environment, "MLFLOW_TRACKING_URI": ""},  # the driver mirrors all of it at the end
                    on_event=self.view.event,
                )
            except EspalierError as error:
                if last or not error.retryable:
                    raise
                self.view.note(f"{request.stage} {request.name}: {error.problems[0].message}; once more")
        raise AssertionError("unreachable")

    def common(self, stage: str, *, spec: Path | None = None) -> list[str]:
        """Returns what every stage is told."""
        places = ["--store", self.places.store, "--home", str(self.places.home)]
        return ["--spec", str(spec or self.spec), *places, "--stage", stage, "--json"]

    def note(self, stage: str, label: str, ref: ArtifactRef | None, seconds: float, *, cached: bool) -> None:
        """Tells the view and the record that a stage is done."""
        self.view.stage_done(stage, label, seconds, cached=cached)
        entry = {
            "stage": stage,
            "name": label,
            "ref": str(ref) if ref else None,
            "seconds": round(seconds, 2),
            "cached": cached,
            "made_seconds": self.store.manifest(ref).provenance.get("seconds") if ref and cached else None,
        }
        self.done.append(entry)
        self.record.update(stages=self.done)

    def metrics(self, ref: ArtifactRef) -> Mapping[str, Any]:
        """Returns what was measured when an artifact was made."""
        return self.store.manifest(ref).metrics
