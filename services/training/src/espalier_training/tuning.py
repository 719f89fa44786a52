"""The stage `tune`: a candidate's study, from what its ledger knows to the model of the best trial.

A study that was killed goes on: the ledger has what finished trials came to, the store their models.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from espalier_runtime.job import Job
from espalier_sdk import ArtifactRef
from espalier_sdk.artifacts import digest_of
from espalier_sdk.errors import TrainingFailed

from espalier_training.ledger import Ledger, Record
from espalier_training.remote import forget
from espalier_training.search import Search
from espalier_training.trial import Told

TRIALS = "trials.json"
Runner = Callable[[Job, Search, Told], None]


def study(job: Job, run: Runner) -> dict[str, Any]:
    """Has `run` make what is left of the candidate's trials and writes `trials.json`; returns the outcome.

    Keys: model (of the best trial, by its first seed), best (its number), values, score, scored, greater_is_better,
    trials, complete, stopped, refused, failed, importance. Raises TrainingFailed where no trial came to a model.
    """
    assert job.request.candidate is not None, "a tune request names its candidate"
    candidate = job.spec.candidates[job.request.candidate]
    assert candidate.tune is not None, "a tune request is of a candidate that is tuned"
    scored = job.request.what["scored"]
    greater = bool(scored) and job.plugins.load_class("espalier.metrics", scored["metric"]["name"]).greater_is_better
    ledger = Ledger.open(job.workplace.home / "studies" / f"{_identity(job)}.jsonl", job.workplace.store)
    search = Search(candidate.tune, ledger, greater_is_better=greater)
    best = search.best()
    if best and not all(job.workplace.store.has(ArtifactRef.parse(ref)) for ref in best.models):
        search.forget(best.number)
    told = Told(
        spec=job.spec,
        candidate=job.request.candidate,
        inputs={role: str(found.ref) for role, found in job.inputs.items()},
        scored=scored,
        seeds=candidate.tune.seeds,
        store=job.workplace.store.uri,
        home=str(job.workplace.home),
    )
    if search.left:
        run(job, search, told)
        _sweep(search, told, job)
    return _outcome(job, search, greater=greater)


def _identity(job: Job) -> str:
    """Returns what the ledger is named by: the request without the count of trials, so that more of them go on."""
    parts = job.request.components()
    tuned = {name: value for name, value in parts["what"]["tune"].items() if name != "trials"}
    return digest_of({**parts, "what": {**parts["what"], "tune": tuned}})


def _outcome(job: Job, search: Search, *, greater: bool) -> dict[str, Any]:
    records, best = search.records, search.best()
    if best is None:
        raise TrainingFailed(
            f"none of {len(records)} trials came to a model; the first: {_first_message(records)}",
            code="no_trial",
            field=f"candidates.{job.request.candidate}.tune.space",
            remedy="narrow the ranges to values that the candidate trains with",
        )
    trials = [_trial(one, search) for one in records]
    (job.out / TRIALS).write_text(json.dumps(trials, indent=1), encoding="utf-8")
    scored = job.request.what["scored"]
    return {
        "model": best.models[0],
        "best": best.number,
        "values": search.values(best.point),
        "score": best.score,
        "scored": scored["value"] if scored else "validation_loss",
        "greater_is_better": greater,
        "trials": len(records),
        **{state: sum(one.state == state for one in records) for state in ("complete", "stopped", "refused", "failed")},
        "importance": search.importance(),
    }


def _first_message(records: list[Record]) -> str:
    return next((one.message for one in records if one.message), "it was stopped early")


def _trial(record: Record, search: Search) -> dict[str, Any]:
    return {
        "number": record.number,
        "values": search.values(record.point),
        "state": record.state,
        "score": record.score,
        "scores": record.scores,
        "losses": record.losses,
        "models": record.models,
        "message": record.message,
    }


def _sweep(search: Search, told: Told, job: Job) -> None:
    """Removes the checkpoints of trials that were stopped: nobody goes on from them."""
    for record in search.records:
        if record.state == "stopped":
            _, request = told.request(search.values(record.point), 0, job.plugins)
            forget(Path(told.home) / "checkpoints" / request.digest(), job.workplace.store, request.digest())
