"""The search of a study: values, what became of them, and that an interrupted search goes on as an unbroken one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from espalier_runtime.specs.models import TuneSpec
from espalier_runtime.store import Store
from espalier_runtime.testing import s3_store
from espalier_training.ledger import Ledger
from espalier_training.search import Search

SPACE = {
    "training.learning_rate": {"log_uniform": [1e-5, 1e-1]},
    "strategy.config.layers": {"integer": [1, 4]},
    "peft": {"choice": ["lora", {"name": "ia3", "config": {}}]},
}


def _search(path: Path, *, greater_is_better: bool = True, store: str = "", **tune: Any) -> Search:
    return Search(
        TuneSpec.model_validate({"space": SPACE, "trials": 12} | tune),
        Ledger.open(path, Store.open(store or str(path.parent / "store"))),
        greater_is_better=greater_is_better,
    )


def _score(values: dict[str, Any]) -> float:
    return -((math.log10(values["training.learning_rate"]) + 3) ** 2) + 0.01 * values["strategy.config.layers"]


def _go_on(search: Search, trials: int) -> list[dict[str, Any]]:
    """Tries values; every fourth trial is stopped after a loss, every fifth refused."""
    tried = []
    for _ in range(min(trials, search.left)):
        number, values = search.ask()
        tried.append(values)
        search.hear(number, 1, 2.0 - 0.01 * number)
        if number % 4 == 3:
            search.tell(number, state="stopped")
        elif number % 5 == 4:
            search.tell(number, state="refused", message="no")
        else:
            search.tell(
                number, state="complete", score=_score(values), scores=(_score(values),), models=(f"m{number}",)
            )
    return tried


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_was_interrupted_asks_for_what_an_unbroken_one_asks_for(tmp_path: Path, sampler: str) -> None:
    unbroken = _go_on(_search(tmp_path / "one", sampler=sampler), 12)
    first = _search(tmp_path / "two", sampler=sampler)
    tried = _go_on(first, 5)
    begun = first.ask()  # and the process is gone
    again = _search(tmp_path / "two", sampler=sampler)
    assert again.left == 7
    assert again.ask() == begun
    again.hear(5, 1, 1.95)
    again.tell(5, state="complete", score=_score(begun[1]), scores=(_score(begun[1]),), models=("m5",))
    assert [*tried, begun[1], *_go_on(again, 6)] == unbroken
    assert [one.state for one in again.records] == [one.state for one in _search(tmp_path / "one").records]
    assert again.best() == _search(tmp_path / "one").best()
    assert len({str(values) for values in unbroken}) == 12


def test_a_line_that_a_killed_process_left_half_written_is_passed_over(tmp_path: Path) -> None:
    _go_on(_search(tmp_path / "ledger"), 3)
    text = (tmp_path / "ledger").read_text()
    (tmp_path / "ledger").write_text(text[: text.rindex('"state"')])
    again = _search(tmp_path / "ledger")
    assert again.left == 10, "the third trial is made again"
    _go_on(again, 1)
    assert _search(tmp_path / "ledger").left == 9


@pytest.mark.servers
def test_beside_an_object_store_a_study_goes_on_where_the_disk_is_lost(tmp_path: Path) -> None:
    with s3_store() as store:
        if store is None:
            pytest.skip("moto's server is not installed: nothing is tried on S3")
        first = _search(tmp_path / "one" / "study.jsonl", store=store)
        _go_on(first, 5)
        begun = first.ask()
        elsewhere = _search(tmp_path / "two" / "study.jsonl", store=store)
        assert elsewhere.records == first.records
        assert elsewhere.ask() == begun


def test_more_trials_go_on_from_those_that_are_known(tmp_path: Path) -> None:
    _go_on(_search(tmp_path / "ledger", trials=4), 4)
    more = _search(tmp_path / "ledger", trials=6)
    assert more.left == 2
    assert [number for number, _ in (more.ask(), more.ask())] == [4, 5]
    assert len(_search(tmp_path / "ledger", trials=3).records) == 3, "fewer trials look at the first alone"


def test_values_lie_in_their_ranges_and_can_be_written_down(tmp_path: Path) -> None:
    for values in _go_on(_search(tmp_path / "ledger", sampler="random"), 12):
        rate = values["training.learning_rate"]
        assert 1e-5 <= rate <= 1e-1
        assert float(f"{rate:.4g}") == rate
        assert values["strategy.config.layers"] in (1, 2, 3, 4)
        assert values["peft"] in ("lora", {"name": "ia3", "config": {}})


def test_tpe_comes_nearer_to_the_best_rate_than_chance(tmp_path: Path) -> None:
    def mean_distance(sampler: str) -> float:
        rates = []
        for seed in range(4):
            search = _search(tmp_path / f"{sampler}{seed}", sampler=sampler, trials=20, seed=seed)
            for _ in range(20):
                number, values = search.ask()
                search.tell(number, state="complete", score=_score(values))
                rates += [values["training.learning_rate"]] if number >= 10 else []
        return sum(abs(math.log10(rate) + 3) for rate in rates) / len(rates)

    assert mean_distance("tpe") < 0.7 * mean_distance("random"), "random: uniform over four decades, 1.0 on average"


def test_a_grid_has_every_combination_once(tmp_path: Path) -> None:
    space = {"training.epochs": {"choice": [1, 2]}, "peft.config.rank": {"choice": [2, 4, 8]}}
    search = Search(
        TuneSpec.model_validate({"space": space, "sampler": "grid"}),
        Ledger.open(tmp_path / "l", Store.open(str(tmp_path / "store"))),
        greater_is_better=True,
    )
    tried = [search.ask()[1] for _ in range(search.left)]
    assert sorted((one["training.epochs"], one["peft.config.rank"]) for one in tried) == [
        (epochs, rank) for epochs in (1, 2) for rank in (2, 4, 8)
    ]


def test_the_best_is_the_least_where_less_is_better_and_the_first_of_equals(tmp_path: Path) -> None:
    search = _search(tmp_path / "ledger", greater_is_better=False, trials=4)
    for score in (0.5, 0.3, 0.3, 0.9):
        number, _ = search.ask()
        search.tell(number, state="complete", score=score)
    best = search.best()
    assert best is not None
    assert best.number == 1


def test_importance_names_what_made_the_difference_once_there_are_enough_trials(tmp_path: Path) -> None:
    search = _search(tmp_path / "ledger", sampler="random", trials=40)
    _go_on(search, 14)
    assert search.importance() is None, "14 trials, 8 of them complete"
    _go_on(search, 26)
    told = search.importance()
    assert told is not None
    assert max(told, key=lambda path: told[path]) == "training.learning_rate"
    assert sum(told.values()) == pytest.approx(1.0, abs=1e-3)


def test_a_trial_whose_model_is_gone_is_made_again_with_its_values(tmp_path: Path) -> None:
    tried = _go_on(_search(tmp_path / "ledger"), 3)
    again = _search(tmp_path / "ledger")
    best = again.best()
    assert best is not None
    again.forget(best.number)
    assert again.ask() == (best.number, tried[best.number])
