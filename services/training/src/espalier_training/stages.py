"""The stages of this service: a base model fetched, a dataset prepared, a candidate trained or tuned on Ray."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from espalier_runtime.job import Job, Stage
from espalier_runtime.request import base_choice, base_request, prepare_request
from espalier_runtime.specs import Spec
from espalier_sdk.artifacts import ArtifactRef
from espalier_sdk.errors import SpecError

from espalier_training.checkpoints import bring
from espalier_training.job import PROGRESS, TrainJob
from espalier_training.prepare import prepare
from espalier_training.remote import RemoteCheckpoints, forget


def fetch_base(job: Job) -> dict[str, Any]:
    """Copies a base model into the store."""
    choice = next(  # by digest: two folders are two bases of one name
        found
        for candidate in job.spec.candidates.values()
        if (found := base_choice(candidate)) and base_request(found, job.plugins).digest() == job.request.digest()
    )
    revision = job.request.resolved["base"]
    job.plugins.load("espalier.base_models", choice).fetch(revision, job.out)
    size = sum(path.stat().st_size for path in job.out.rglob("*") if path.is_file())
    return {"size_bytes": size, "revision": revision}


def run(job: Job) -> dict[str, Any]:
    """Trains the candidate that the request names on Ray Train; prepares its data first where nobody has."""
    from espalier_training.on_ray import fit

    prepared = prepared_for(job)
    job.session.start(job.request.plugins)
    assert job.request.candidate is not None, "a train request names its candidate"
    where = job.spec.candidates[job.request.candidate].where
    return trained(job, prepared, lambda train_job: fit(train_job, where, job))


def prepared_for(job: Job) -> ArtifactRef:
    """Returns the prepared dataset of the candidate that a train request names, made now where nobody has."""
    assert job.request.candidate is not None, "a train request names its candidate"
    dataset, base = job.inputs["dataset"], job.inputs.get("base")
    request = prepare_request(job.spec, job.request.candidate, dataset.ref, base.ref if base else None, job.plugins)
    return job.make(request, prepare).ref


def trained(job: Job, prepared: ArtifactRef, fit: Callable[[TrainJob], dict[str, Any]]) -> dict[str, Any]:
    """Trains by `fit`, passes its progress on, and leaves what was logged beside the model; returns the metrics."""
    assert job.request.candidate is not None, "a train request names its candidate"
    train_job = make_job(job.spec, job.request.candidate, job, prepared)
    assert train_job.checkpoints, "a stage has a home"
    folder, remote = Path(train_job.checkpoints), RemoteCheckpoints.of(train_job)
    job.afterwards.append(lambda: forget(folder, job.workplace.store, train_job.request))
    from_checkpoint = job.spec.candidates[job.request.candidate].where.from_checkpoint
    if from_checkpoint:
        source = Path(from_checkpoint)
        bring(source, folder, request=train_job.request)
        if remote:
            remote.adopt(folder / source.name)
    watch = _Watch(job, job.beside / PROGRESS, remote)
    try:
        metrics = fit(train_job)
    finally:
        watch.stop()
    for name in ("history", "phases"):
        (job.beside / f"{name}.json").write_text(json.dumps(metrics.pop(name)), encoding="utf-8")
    return metrics


def make_job(spec: Spec, name: str, job: Job, prepared: Any) -> TrainJob:
    """Returns the plain values that a worker needs."""
    candidate = spec.candidates[name]
    where = candidate.where
    if where.gpus_per_worker > 1:
        raise SpecError(
            f"gpus_per_worker {where.gpus_per_worker:g}: a worker trains on one GPU, or a part of one",
            field=f"candidates.{name}.where.gpus_per_worker",
            given=where.gpus_per_worker,
            accepted="up to 1",
            remedy="ask for more `workers` with one GPU each",
        )
    cpus = where.cpus_per_worker or max(1, job.session.cpus() // where.workers)
    training = candidate.training
    micro = where.micro_batch_size or max(1, training.batch_size // where.workers)
    per_pass = micro * where.workers
    if training.batch_size % per_pass:
        raise SpecError(
            f"training.batch_size {training.batch_size} is no multiple of workers x micro_batch_size = {per_pass}",
            field=f"candidates.{name}.training.batch_size",
            given=training.batch_size,
            accepted=f"a multiple of {per_pass}",
        )
    return TrainJob(
        request=job.request.digest(),
        candidate=name,
        store=job.workplace.store.uri,
        dataset=str(job.inputs["dataset"].ref),
        prepared=str(prepared),
        base=str(job.inputs["base"].ref) if "base" in job.inputs else None,
        auxiliaries={role: str(job.inputs[role].ref) for role in candidate.auxiliaries},
        out=str(job.out),
        beside=str(job.beside),
        strategy=candidate.strategy.model_dump(mode="json"),
        peft=candidate.peft.model_dump(mode="json") if candidate.peft else None,
        learner=candidate.learner.model_dump(mode="json"),
        task=spec.task_of(candidate).model_dump(mode="json"),
        controls=tuple(choice.model_dump(mode="json") for choice in candidate.controls),
        training=dict(job.request.what["training"]),
        workers=where.workers,
        threads=max(1, int(cpus)),
        zero_stage=where.zero_stage,
        offload=where.offload,
        gradient_checkpointing=where.gradient_checkpointing,
        compile=where.compile,
        micro_batch_size=micro,
        accumulation=training.batch_size // per_pass,
        checkpoint_steps=where.checkpoint_steps,
        checkpoints=str(job.workplace.home / "checkpoints" / job.request.digest()),
        plugins=tuple(use.model_dump() for use in job.request.plugins),
    )


class _Watch:
    """Passes on the progress that the first worker leaves in a file, while Ray Train holds this process.

    The file is beside the model where the worker sees that, else it is in the store.
    """

    def __init__(self, job: Job, path: Path, remote: RemoteCheckpoints | None) -> None:
        self._job, self._path, self._remote = job, path, remote
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)

    def _follow(self) -> None:
        last = ""
        looked = time.monotonic()
        while not self._stop.wait(0.2):
            text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
            if not text and self._remote and time.monotonic() - looked > 5:
                looked = time.monotonic()
                text = self._remote.told()
            if text and text != last:
                last = text
                event = json.loads(text)
                self._job.progress.update(event["step"], event["steps"], event["note"])


def search(job: Job) -> dict[str, Any]:
    """Finds the best values of the candidate that the request names."""
    from espalier_training.on_tune import run_study
    from espalier_training.tuning import study

    return study(job, run_study)


TRAIN = Stage(name="train", run=run)
TUNE = Stage(name="tune", run=search)
BASE = Stage(name="base", run=fetch_base)
PREPARE = Stage(name="prepare", run=prepare)
