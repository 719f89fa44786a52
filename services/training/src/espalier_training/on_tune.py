"""A study on Ray Tune: each trial a process of its own, as many at once as the cluster has room for.

Knows nothing about how values are found or how a trial is trained.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import ray
from espalier_runtime.job import Job
from espalier_runtime.progress import EVENTS_VARIABLE
from espalier_runtime.ray_session import require_same_plugins
from espalier_runtime.specs.models import Candidate, WhereSpec
from espalier_sdk import ArtifactRef
from espalier_sdk.artifacts import PluginUse
from espalier_sdk.errors import EspalierError
from ray import tune
from ray.tune import Stopper
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher

from espalier_training.ray_storage import ray_storage
from espalier_training.search import Search
from espalier_training.trial import Told, run_trial

_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files of each trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # what a trial reports at its end is not what asha compares
}
_WAITING_BYTES = 2**28
_REDUCTION = 3  # asha's eta: of those that came as far, one in three goes on (Li et al. 2020; Hyperband's usual three)


def run_study(job: Job, search: Search, told: Told) -> None:
    """Has Ray Tune run the trials that are left; raises the error of what ended the study before its end."""
    os.environ.update({**_QUIET, **os.environ})
    candidate = told.spec.candidates[told.candidate]
    where = candidate.where
    job.session.start(job.request.plugins)
    cpus = where.cpus_per_worker or max(1, job.session.cpus() // where.workers)
    grouped = where.workers > 1 or where.zero_stage > 0
    # A trial of several workers waits for them, and they take the resources; Ray Tune wants a trial to take some.
    resources = {"memory": _WAITING_BYTES} if grouped else {"CPU": cpus, "GPU": where.gpus_per_worker}
    asking = _Asking(job, search)
    plugins = [use.model_dump() for use in job.request.plugins]
    with ray_storage(job, "tune") as storage:
        tuner = tune.Tuner(
            tune.with_resources(_trainable(told, plugins, last=candidate.training.validations), resources),
            tune_config=tune.TuneConfig(
                search_alg=asking,
                scheduler=_scheduler(candidate, search),
                num_samples=search.left,
                max_concurrent_trials=_at_once(where, cpus),
            ),
            run_config=tune.RunConfig(
                **storage,
                stop=_Broken(asking),
                failure_config=tune.FailureConfig(max_failures=where.max_failures),
                verbose=0,
            ),
        )
        tuner.fit()
    if asking.broken:
        raise asking.broken


def _at_once(where: WhereSpec, cpus: float) -> int:
    """Returns how many trials the cluster has room for, at least one."""
    have = ray.cluster_resources()
    room = [have.get("CPU", 1) // (where.workers * cpus)]
    if where.gpus_per_worker:
        room.append(have.get("GPU", 0) // (where.workers * where.gpus_per_worker))
    return max(1, int(min(room)))


def _trainable(told: Told, plugins: list[dict[str, Any]], *, last: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def trial(config: dict[str, Any]) -> dict[str, Any]:
        os.environ.pop(EVENTS_VARIABLE, None)  # of the process that started Ray: here the number is another file's
        try:
            require_same_plugins([PluginUse.model_validate(use) for use in plugins])
            return {"outcome": json.dumps(run_trial(told, json.loads(config["values"]), on_validation=report))}
        except EspalierError as error:
            return {"broken": error}

    def report(validation: int, loss: float) -> None:
        # After the last one nothing is saved by stopping the trial, and its model would be lost.
        compared = {"compared": loss} if validation < last else {}
        tune.report({"validation": validation, "loss": loss, **compared})

    return trial


class _Asking(Searcher):
    """Passes on between Ray Tune and the search, and tells the user how far it is.

    Ray's own OptunaSearch would take the last loss of a trial that was stopped early for its score.
    """

    def __init__(self, job: Job, search: Search) -> None:
        super().__init__()
        self._job, self._search = job, search
        self.broken: EspalierError | None = None
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        number, values = self._search.ask()
        self._numbers[trial_id] = number
        self._tell(f"trial {number}")
        return {"number": number, "values": json.dumps(values)}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        if "validation" in result:
            number = self._numbers[trial_id]
            self._search.hear(number, int(result["validation"]), float(result["loss"]))
            self._tell(f"trial {number}: validation loss {result['loss']:.3g}")

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        number, found = self._numbers[trial_id], result or {}
        self.broken = self.broken or found.get("broken")
        if self.broken:  # what ran beside it goes on when the study does
            return
        if error:
            self._search.tell(number, state="failed", message="its process was lost, as by too little memory")
        elif "outcome" in found:
            outcome = json.loads(found["outcome"])
            self._search.tell(number, **outcome)
            for ref in outcome.get("models", ()):
                if self._job.attempt:
                    self._job.attempt.read(ArtifactRef.parse(ref))
        else:
            self.on_trial_result(trial_id, found)  # Ray Tune passes the last loss on here alone
            self._search.tell(number, state="stopped")
        self._tell("")

    def _tell(self, what: str) -> None:
        best = self._search.best()
        notes = [what, f"best {best.score:.3g}" if best else ""]
        done = sum(one.state != "running" for one in self._search.records)
        self._job.progress.update(done, self._search.total, ", ".join(filter(None, notes)))

    def __getstate__(self) -> dict[str, Any]:
        """Leaves what it knows to the ledger: Ray Tune writes its objects down, and nobody reads that again."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Leaves it to the ledger."""


class _Broken(Stopper):
    """Ends the study when it cannot go on."""

    def __init__(self, asking: _Asking) -> None:
        self._asking = asking

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Tells whether something failed that is no fault of the values."""
        return self._asking.broken is not None


def _scheduler(candidate: Candidate, search: Search) -> Any:
    """Returns Ray Tune's scheduler, which has heard what the ledger knows; None where no trial is stopped early."""
    if candidate.tune is None or candidate.tune.scheduler != "asha":
        return None
    scheduler = ASHAScheduler(
        time_attr="validation",
        metric="compared",
        mode="min",
        max_t=candidate.training.validations,
        reduction_factor=_REDUCTION,
    )
    for record in search.records:
        if record.losses and record.state != "running":
            trial = SimpleNamespace(trial_id=f"before-{record.number}")
            scheduler.on_trial_add(None, trial)
            for place, loss in enumerate(record.losses[: candidate.training.validations - 1], 1):
                scheduler.on_trial_result(None, trial, {"validation": place, "compared": loss})
    return scheduler
