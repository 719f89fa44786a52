"""A tiny dataset, prepared and trained on in this one process, for the tests of training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from espalier_runtime.job import Job, Workplace, perform
from espalier_runtime.plugins import Plugins
from espalier_runtime.ray_session import Session
from espalier_runtime.request import base_choice, base_request, prepare_request, train_request
from espalier_runtime.specs import From, Spec
from espalier_runtime.store import Store
from espalier_runtime.tables import write_parts
from espalier_sdk import ArtifactRef, Choice, Manifest
from espalier_training.job import TrainJob
from espalier_training.prepare import prepare
from espalier_training.stages import fetch_base, make_job
from espalier_training.train import train

TASK = {"name": "classification", "config": {"text": "message", "target": "queue"}}
TINY = {"layers": 1, "hidden_size": 32, "vocabulary_size": 200, "max_positions": 32}
SPEC = {
    "name": "tiny",
    "objective": {"task": TASK, "metric": "macro_f1"},
    "data": {"tickets": {"sources": ["files"]}},
    "candidates": {
        "scratch": {
            "strategy": {"name": "from-scratch", "config": TINY},
            "training": {"epochs": 2, "batch_size": 8, "max_tokens": 16, "learning_rate": 0.01},
            "where": {"cpus_per_worker": 1},
        },
        "adapted": {
            "strategy": "peft",
            "base": {"from": "scratch"},
            "peft": {"name": "lora", "config": {"rank": 2}},
            "training": {"epochs": 2, "batch_size": 8, "max_tokens": 16, "learning_rate": 0.01},
            "where": {"cpus_per_worker": 1},
        },
    },
}
WORDS = {"delivery": "parcel late driver road", "billing": "invoice charge card refund", "account": "login mail reset"}


def rows(count: int, *, start: int = 0) -> pa.Table:
    """Returns rows whose words tell their queue."""
    queues = [sorted(WORDS)[place % 3] for place in range(start, start + count)]
    texts = [f"{WORDS[queue]} number {place} please" for place, queue in enumerate(queues, start)]
    return pa.table({"espalier_id": [str(place) for place in range(count)], "message": texts, "queue": queues})


def make_dataset(store: Store, train_rows: pa.Table) -> ArtifactRef:
    """Publishes a dataset, as preprocessing leaves one."""
    task = Plugins().load("espalier.tasks", Choice(**TASK))
    attempt = store.begin("0" * 64)
    for split, table in {"train": train_rows, "validation": rows(6, start=90), "test": rows(6, start=96)}.items():
        write_parts([table], attempt.folder / split)
    state = {"task": task.finish(task.observe(train_rows)).model_dump(mode="json"), "transforms": []}
    (attempt.folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    return attempt.publish(kind="dataset", name="tickets", what={"task": TASK}).ref()


def train_alone(
    folder: Path, task: dict[str, Any], splits: dict[str, pa.Table], candidates: dict[str, Any]
) -> dict[str, Made]:
    """Prepares and trains candidates of any task, one after the other; each refers to those that stand before it."""
    spec = {**SPEC, "objective": {"task": task, "metric": "accuracy"}, "candidates": candidates}
    store, made = Store.open(str(folder / "store")), {}
    place = Workplace(Spec.model_validate(spec), store, folder / "home", Plugins(), Session())
    for name, candidate in place.spec.candidates.items():
        choice = place.spec.task_of(candidate)
        own = place.plugins.load("espalier.tasks", choice)
        attempt = store.begin("0" * 64)
        for split, table in splits.items():
            write_parts([table], attempt.folder / split)
        state = own.finish(own.observe(splits["train"])).model_dump(mode="json")
        (attempt.folder / "state.json").write_text(json.dumps({"task": state, "transforms": []}), encoding="utf-8")
        dataset = attempt.publish(kind="dataset", name="tickets", what={"task": choice.model_dump(mode="json")}).ref()
        others = {"base": candidate.base} if isinstance(candidate.base, From) else {}
        others |= candidate.auxiliaries
        inputs = {role: made[one.from_].model for role, one in others.items()}
        if (base := base_choice(candidate)) is not None:
            inputs["base"] = perform(base_request(base, place.plugins), fetch_base, place)[0].ref()
        made[name] = _train(place, name, dataset, inputs)
    return made


def _train(place: Workplace, name: str, dataset: ArtifactRef, others: dict[str, ArtifactRef]) -> Made:
    kept: dict[str, Any] = {}

    def run(job: Job) -> dict[str, Any]:
        request = prepare_request(job.spec, name, dataset, others.get("base"), job.plugins)
        kept["prepared"] = job.make(request, prepare).ref
        kept["job"] = make_job(job.spec, name, job, kept["prepared"])
        return train(kept["job"], out=job.out)

    manifest, _ = perform(train_request(place.spec, name, {"dataset": dataset, **others}, place.plugins), run, place)
    return Made(place, dataset, kept["prepared"], kept["job"], manifest.ref(), manifest.metrics)


@dataclass
class Made:
    """A dataset, what was prepared from it, and the job of the candidate."""

    place: Workplace
    dataset: ArtifactRef
    prepared: ArtifactRef
    job: TrainJob
    model: ArtifactRef
    metrics: dict[str, Any]


def make(folder: Path, store: Store | None = None) -> Made:
    """Prepares and trains as the stage does, without Ray."""
    store, kept = store or Store.open(str(folder / "store")), {}
    place = Workplace(Spec.model_validate(SPEC), store, folder / "home", Plugins(), Session())
    dataset = make_dataset(store, rows(48))

    def run(job: Job) -> dict[str, Any]:
        request = prepare_request(job.spec, "scratch", dataset, None, job.plugins)
        kept["prepared"] = job.make(request, prepare).ref
        kept["job"] = make_job(job.spec, "scratch", job, kept["prepared"])
        return train(kept["job"], out=job.out)

    manifest, cached = perform(train_request(place.spec, "scratch", {"dataset": dataset}, place.plugins), run, place)
    assert not cached
    return Made(place, dataset, kept["prepared"], kept["job"], manifest.ref(), manifest.metrics)


def adapt(made: Made) -> tuple[TrainJob | None, Manifest]:
    """Trains the candidate that adapts the model of the other one; returns its manifest, and its job the first time."""
    kept = {}
    inputs = {"dataset": made.dataset, "base": made.model}

    def run(job: Job) -> dict[str, Any]:
        request = prepare_request(job.spec, "adapted", made.dataset, made.model, job.plugins)
        kept["job"] = make_job(job.spec, "adapted", job, job.make(request, prepare).ref)
        return train(kept["job"], out=job.out)

    request = train_request(made.place.spec, "adapted", inputs, made.place.plugins)
    manifest, _ = perform(request, run, made.place)
    return kept.get("job"), manifest


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
