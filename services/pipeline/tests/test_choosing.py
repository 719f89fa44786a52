"""The one-standard-error rule."""

from __future__ import annotations

from espalier_pipeline.choosing import Standing, choose
from hypothesis import given
from hypothesis import strategies as st

FULL, LORA, SCRATCH = Standing(0.91, 0.02, 22e6), Standing(0.90, 0.02, 2e5), Standing(0.71, 0.03, 1.9e6)


def test_the_cheapest_within_one_standard_error_of_the_best_is_chosen() -> None:
    verdict = choose({"full": FULL, "lora": LORA, "scratch": SCRATCH}, greater_is_better=True)
    assert (verdict.chosen, verdict.runner_up, verdict.best) == ("lora", "full", "full")
    assert verdict.reason == "cheapest within one standard error of full"


def test_one_that_is_cheaper_but_further_away_is_not_chosen() -> None:
    verdict = choose({"full": FULL, "scratch": SCRATCH}, greater_is_better=True)
    assert (verdict.chosen, verdict.runner_up) == ("full", "scratch")
    assert verdict.reason == "best, no cheaper one within one standard error"


def test_where_less_is_better_the_smallest_value_is_the_best() -> None:
    verdict = choose({"a": Standing(2.0, 0.1, 1), "b": Standing(1.0, 0.1, 9)}, greater_is_better=False)
    assert verdict.chosen == "b"


def test_candidates_that_miss_the_limit_stand_back_while_any_meets_it() -> None:
    near, meeting = Standing(0.899, 0.05, 1), Standing(0.901, 0.05, 9)
    verdict = choose({"near": near, "meeting": meeting}, greater_is_better=True, at_least=0.9)
    assert verdict.chosen == "meeting"
    assert verdict.reason == "best, no cheaper one within one standard error meets the limits"
    assert verdict.meets_limits


def test_where_none_meets_the_limit_the_rule_still_chooses_and_says_so() -> None:
    verdict = choose({"full": FULL, "lora": LORA}, greater_is_better=True, at_least=0.99)
    assert verdict.chosen == "lora"
    assert not verdict.meets_limits


def test_a_single_candidate_has_no_runner_up() -> None:
    verdict = choose({"full": FULL}, greater_is_better=True)
    assert (verdict.chosen, verdict.runner_up, verdict.reason) == ("full", None, "the only candidate")


STANDINGS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.builds(Standing, st.floats(0, 1), st.floats(0, 0.2), st.floats(1, 1e9)),
    min_size=1,
    max_size=6,
)


@given(STANDINGS)
def test_the_chosen_is_never_worse_than_the_best_by_more_than_its_standard_error(standings) -> None:
    verdict = choose(standings, greater_is_better=True)
    best = standings[verdict.best]
    assert standings[verdict.chosen].value >= best.value - best.error
    assert best.value == max(one.value for one in standings.values())
    assert verdict.runner_up != verdict.chosen
