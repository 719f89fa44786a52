"""What stands between Ray Tune and the search, driven without a Ray."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from espalier_runtime.progress import Progress
from espalier_runtime.specs import Candidate
from espalier_runtime.store import Store
from espalier_sdk.errors import DataError
from espalier_training.ledger import Ledger
from espalier_training.on_tune import _Asking, _Broken, _scheduler
from espalier_training.search import Search

CANDIDATE = Candidate.model_validate(
    {
        "strategy": "from-scratch",
        "training": {"validations": 4},
        "tune": {"space": {"training.epochs": {"uniform": [1.0, 9.0]}}, "trials": 6, "scheduler": "asha"},
    }
)


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return _search(tmp_path)


def _search(folder: Path) -> Search:
    assert CANDIDATE.tune is not None
    ledger = Ledger.open(folder / "ledger", Store.open(str(folder / "store")))
    return Search(CANDIDATE.tune, ledger, greater_is_better=True)


def _asking(search: Search) -> _Asking:
    job: Any = SimpleNamespace(attempt=None, progress=Progress("tune"))
    return _Asking(job, search)


def _first_report(scheduler: Any, name: str, loss: float) -> str:
    trial = SimpleNamespace(trial_id=name)
    scheduler.on_trial_add(None, trial)
    decided: str = scheduler.on_trial_result(None, trial, {"validation": 1, "compared": loss})
    return decided


def test_what_ray_tune_tells_comes_into_the_ledger(search: Search) -> None:
    asking = _asking(search)
    for name in "abcd":
        told = asking.suggest(name)
        assert told is not None
        assert set(json.loads(told["values"])) == {"training.epochs"}
    asking.on_trial_result("a", {"validation": 1, "loss": 0.5, "compared": 0.5})
    asking.on_trial_complete("a", {"outcome": json.dumps({"state": "complete", "score": 0.8, "models": ["m"]})})
    asking.on_trial_complete("b", {"validation": 1, "loss": 0.7, "compared": 0.7})
    asking.on_trial_complete("c", error=True)
    found = [(one.state, list(one.losses), one.score) for one in search.records]
    assert found == [
        ("complete", [0.5], 0.8),
        ("stopped", [0.7], None),
        ("failed", [], None),
        ("running", [], None),
    ]


def test_an_error_that_is_no_fault_of_the_values_ends_the_study_and_blames_no_trial(search: Search) -> None:
    asking = _asking(search)
    stopper = _Broken(asking)
    asking.suggest("a")
    asking.suggest("b")
    assert not stopper.stop_all()
    asking.on_trial_complete("a", {"broken": DataError("the disk is full")})
    assert stopper.stop_all()
    asking.on_trial_complete("b", {"validation": 1, "loss": 0.7})
    assert [one.state for one in search.records] == ["running", "running"], "both are made again by the next run"


def test_a_scheduler_that_goes_on_stops_what_an_unbroken_one_stops(search: Search, tmp_path: Path) -> None:
    losses = [0.5, 0.6, 0.4]
    unbroken = _scheduler(CANDIDATE, search)
    for place, loss in enumerate(losses):
        _first_report(unbroken, str(place), loss)
        number, _ = search.ask()
        search.hear(number, 1, loss)
        search.tell(number, state="stopped")
    # The best third of 0.4, 0.5 and 0.6 begins at 0.467, between two of them.
    for loss, decided in ((0.48, "STOP"), (0.45, "CONTINUE")):
        again = _scheduler(CANDIDATE, _search(tmp_path))
        assert _first_report(again, "next", loss) == decided == _first_report(unbroken, f"at {loss}", loss)
