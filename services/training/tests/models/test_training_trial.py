"""Trials and studies without Ray Tune: what a trial trains and how it is scored, refused, found again and resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from espalier_runtime.job import Job, Workplace, perform
from espalier_runtime.plugins import Plugins
from espalier_runtime.ray_session import Session
from espalier_runtime.request import tune_request
from espalier_runtime.specs import Spec
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef, Manifest, TrainingFailed
from espalier_sdk.errors import ClusterError, DataError
from espalier_training import trial
from espalier_training.search import Search
from espalier_training.trial import Told, run_trial
from espalier_training.tuning import study

from .made import SPEC, make_dataset, rows

RATE = "training.learning_rate"
SCORED = {"value": "macro_f1", "metric": {"name": "f1"}, "engine": {"name": "transformers"}}


class Killed(BaseException):
    """What a killed process would be."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trial")
    store = Store.open(str(folder / "store"))
    scratch = SPEC["candidates"]["scratch"]
    spec = Spec.model_validate(
        SPEC | {"candidates": {"scratch": scratch | {"where": {"cpus_per_worker": 1, "checkpoint_steps": 3}}}}
    )
    return Told(
        spec=spec,
        candidate="scratch",
        inputs={"dataset": str(make_dataset(store, rows(48)))},
        scored=SCORED,
        seeds=1,
        store=store.uri,
        home=str(folder / "home"),
    )


def _tried(told: Told, values: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[int, float]]]:
    heard: list[tuple[int, float]] = []
    outcome = run_trial(told, values, on_validation=lambda number, loss: heard.append((number, loss)))
    return outcome, heard


def test_a_trial_trains_an_ordinary_model_per_seed_and_its_score_is_their_mean(told: Told) -> None:
    outcome, heard = _tried(replace(told, seeds=2), {RATE: 0.02})
    assert [number for number, _ in heard] == [1, 2, 3, 4], "of the first seed alone"
    assert outcome["score"] == pytest.approx(sum(outcome["scores"]) / 2)
    assert len(set(outcome["models"])) == 2
    store = Store.open(told.store)
    by_hand, request = told.request({RATE: 0.02}, 1, Plugins())
    assert by_hand.candidates["scratch"].training.seed == 1
    assert str(store.find_request(request.digest())) == outcome["models"][1]
    again, heard_again = _tried(replace(told, seeds=2), {RATE: 0.02})
    assert (again, heard_again) == (outcome, []), "what is in the store is not trained again"


def test_the_score_of_what_does_not_compete_is_its_validation_loss(told: Told) -> None:
    outcome, heard = _tried(replace(told, scored=None), {RATE: 0.02})
    loss = Store.open(told.store).manifest(_ref(outcome)).metrics["validation_loss"]
    assert outcome["score"] == loss
    assert heard == []


def test_trials_share_what_was_prepared_unless_a_value_changes_it(told: Told) -> None:
    store = Store.open(told.store)
    _tried(told, {RATE: 0.02})
    before = set(store.refs("prepared"))
    assert _tried(told, {RATE: 0.03})[0]["state"] == "complete"
    assert set(store.refs("prepared")) == before
    assert _tried(told, {"strategy.config.vocabulary_size": 150})[0]["state"] == "complete"
    assert len(set(store.refs("prepared"))) == len(before) + 1


def test_a_share_of_the_data_is_learned_from_in_as_many_steps_as_all_of_it(told: Told) -> None:
    outcome, _ = _tried(told, {RATE: 0.02, "training.train_share": 0.25})
    metrics = Store.open(told.store).manifest(_ref(outcome)).metrics
    assert (metrics["examples"], metrics["steps"]) == (12, 12), "of 48 examples, in batches of 8, twice"


@pytest.mark.parametrize(
    ("values", "state", "words"),
    [
        ({"strategy.config.layers": 0}, "refused", "greater than or equal to 1"),
        ({"training.batch_size": -1}, "refused", "greater than or equal to 1"),
        ({"training.max_tokens": 64}, "refused", "takes 32 tokens at most"),
        ({RATE: 0.99, "training.max_grad_norm": 1e9, "training.weight_decay": 1e30}, "failed", "became nan"),
    ],
)
def test_values_that_lead_to_no_model_are_an_outcome_and_no_error(
    told: Told, values: dict[str, Any], state: str, words: str
) -> None:
    outcome, _ = _tried(told, values)
    assert outcome["state"] == state
    assert words in outcome["message"]


def test_a_store_that_fails_is_no_outcome_of_the_values(told: Told) -> None:
    gone = replace(told, inputs={"dataset": told.inputs["dataset"][:-1] + "0"})
    with pytest.raises(DataError):
        _tried(gone, {RATE: 0.04})


def test_a_store_that_is_away_while_a_model_is_scored_is_no_outcome_of_the_values(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(trial, "open_model", away)
    with pytest.raises(ClusterError, match="reset by peer"):
        _tried(told, {RATE: 0.02})


def test_a_trial_that_was_killed_goes_on_and_tells_the_losses_from_before_first(told: Told) -> None:
    values, heard = {RATE: 0.015}, []

    def killed(number: int, loss: float) -> None:
        heard.append((number, loss))
        if number == 3:
            raise Killed

    with pytest.raises(Killed):
        run_trial(told, values, on_validation=killed)
    outcome, again = _tried(told, values)
    assert again[:3] == heard
    assert [number for number, _ in again] == [1, 2, 3, 4]
    assert Store.open(told.store).manifest(_ref(outcome)).metrics["resumed_at"] == 6


def _ref(outcome: dict[str, Any]) -> ArtifactRef:
    return ArtifactRef.parse(outcome["models"][0])


def _study(
    folder: Path, tune: dict[str, Any], *, ends_after: int | None = None
) -> tuple[Manifest, list[dict[str, Any]]]:
    """Runs a study in a store of its own, one trial after the other; returns it with its trials."""
    store = Store.open(str(folder / "store"))
    scratch = SPEC["candidates"]["scratch"] | {"tune": tune}
    scratch["training"] = scratch["training"] | {"epochs": 1}
    spec = Spec.model_validate(SPEC | {"candidates": {"scratch": scratch}, "evaluate": {"metrics": ["f1"]}})
    place = Workplace(spec, store, folder / "home", Plugins(), Session())

    def alone(job: Job, search: Search, told: Told) -> None:
        for place in range(search.left):
            number, values = search.ask()
            if place == ends_after:
                raise Killed
            hear = partial(search.hear, number)
            search.tell(number, **run_trial(told, values, on_validation=hear))

    request = tune_request(spec, "scratch", {"dataset": make_dataset(store, rows(48))}, place.plugins)
    manifest, _ = perform(request, lambda job: study(job, alone), place)
    return manifest, json.loads((store.open_artifact(manifest.ref()).folder / "trials.json").read_text())


def test_a_study_that_was_killed_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    space = {RATE: {"log_uniform": [1e-3, 3e-2]}, "training.warmup": {"choice": [0.0, 0.5]}}
    tune = {"space": space, "trials": 3, "sampler": "random"}
    unbroken, trials = _study(tmp_path / "one", tune)
    with pytest.raises(Killed):
        _study(tmp_path / "two", tune, ends_after=2)
    found, _ = _study(tmp_path / "two", tune)
    assert found.ref() == unbroken.ref()
    assert found.metrics == unbroken.metrics
    best = max(trials, key=lambda one: one["score"])
    assert (found.metrics["model"], found.metrics["values"]) == (best["models"][0], best["values"])
    assert (found.metrics["trials"], found.metrics["complete"], found.metrics["scored"]) == (3, 3, "macro_f1")
    assert [len(one["losses"]) for one in trials] == [4, 4, 4]


def test_a_study_without_a_model_says_what_the_first_trial_said(tmp_path: Path) -> None:
    space = {"training.max_tokens": {"choice": [64]}}
    with pytest.raises(TrainingFailed, match=r"none of 1 trials came to a model; the first: .*32 tokens at most"):
        _study(tmp_path, {"space": space, "sampler": "grid"})
