"""One trial of a study, in a process of its own: a candidate with some values is trained, and scored on validation.

Knows nothing about which values come next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from espalier_runtime.job import Job, Workplace, failure_of, perform
from espalier_runtime.opening import open_model
from espalier_runtime.plugins import Plugins
from espalier_runtime.ray_session import Session
from espalier_runtime.request import StageRequest, train_request
from espalier_runtime.specs import Spec
from espalier_runtime.specs.space import with_candidate, with_values
from espalier_runtime.store import Store
from espalier_runtime.tables import read_parts
from espalier_sdk import ArtifactRef, Choice, Manifest
from espalier_sdk.errors import EspalierError, PluginError, SpecError, TrainingFailed
from pydantic import ValidationError

from espalier_training.keeping import OnValidation
from espalier_training.stages import prepared_for, run, trained

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Told:
    """What every trial of a study is told: plain values that travel to any node."""

    spec: Spec
    candidate: str
    inputs: Mapping[str, str]
    scored: Mapping[str, Any] | None  # the value, metric and engine of the score; None: the validation loss
    seeds: int
    store: str
    home: str

    def request(self, values: Mapping[str, Any], seed: int, plugins: Plugins) -> tuple[Spec, StageRequest]:
        """Returns the spec and the train request of a trial's training with the given place among its seeds.

        Raises SpecError for values that the candidate does not take.
        """
        try:
            one = with_values(self.spec.candidates[self.candidate], values)
        except ValidationError as error:
            told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise SpecError(told, field=f"candidates.{self.candidate}") from error
        training = one.training.model_copy(update={"seed": one.training.seed + seed})
        one = one.model_copy(update={"training": training})
        spec = with_candidate(self.spec, self.candidate, one)
        inputs = {role: ArtifactRef.parse(ref) for role, ref in self.inputs.items()}
        return spec, train_request(spec, self.candidate, inputs, plugins)


def run_trial(told: Told, values: Mapping[str, Any], *, on_validation: OnValidation) -> dict[str, Any]:
    """Trains a model per seed, or finds it in the store, and returns how the trial ended: fields of its record.

    `on_validation` hears the losses of the first seed. Raises the EspalierError of what is no fault of the values:
    a store, a disk or a cluster that fails.
    """
    try:
        scores, models = [], []
        for seed in range(told.seeds):
            manifest, score = _train_and_score(told, values, seed, on_validation if seed == 0 else lambda *_: None)
            models.append(str(manifest.ref()))
            scores.append(score)
        return {"state": "complete", "score": sum(scores) / len(scores), "scores": scores, "models": models}
    except (SpecError, PluginError) as error:
        return {"state": "refused", "message": str(error.problems[0].message)}
    except TrainingFailed as error:
        return {"state": "failed", "message": str(error.problems[0].message)}
    except EspalierError:
        raise
    except OSError as error:
        raise failure_of(error, told.store) from error
    except Exception as error:  # values that a plugin takes and a library then does not, or too little memory for them
        return {"state": "failed", "message": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def _train_and_score(
    told: Told, values: Mapping[str, Any], seed: int, on_validation: OnValidation
) -> tuple[Manifest, float]:
    plugins = Plugins()
    spec, request = told.request(values, seed, plugins)
    where = spec.candidates[told.candidate].where
    grouped = where.workers > 1 or where.zero_stage > 0
    place = Workplace(spec, Store.open(told.store), Path(told.home), plugins, Session())
    manifest, _ = perform(request, run if grouped else _here(on_validation), place)
    score = manifest.metrics["validation_loss"] if told.scored is None else _score(told, manifest.ref(), place)
    if score is None or not math.isfinite(score):
        raise TrainingFailed(f"the score of the model is {score}")
    return manifest, float(score)


def _here(on_validation: OnValidation) -> Callable[[Job], dict[str, Any]]:
    """Returns the stage that trains in this process: a trial has one worker, and is that worker."""

    def stage(job: Job) -> dict[str, Any]:
        from espalier_training.train import train

        return trained(job, prepared_for(job), lambda one: train(one, out=job.out, on_validation=on_validation))

    return stage


def _score(told: Told, model: ArtifactRef, place: Workplace) -> float | None:
    """Returns the objective's value on validation, by the engine and the metric of the evaluation stage."""
    assert told.scored is not None, "the caller knows what is scored"
    opened = open_model(place.store, model, place.plugins, Choice.model_validate(told.scored["engine"]))
    dataset = place.store.open_artifact(ArtifactRef.parse(told.inputs["dataset"])).folder
    rows = read_parts(dataset / "validation")
    blocks = [rows.slice(start, _ROWS_AT_ONCE) for start in range(0, rows.num_rows, _ROWS_AT_ONCE)]
    predictions = pa.concat_tables(opened.predict(block, transformed=True) for block in blocks)
    metric = place.plugins.load("espalier.metrics", Choice.model_validate(told.scored["metric"]))
    value: float | None = metric.values(predictions).get(told.scored["value"])
    return value
