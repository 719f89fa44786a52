"""Answers against values by hand, by the rules of SQuAD's own script."""

from __future__ import annotations

import pyarrow as pa
import pytest
from espalier_metrics.squad import Squad, SquadConfig, normalised, score
from espalier_sdk.errors import DataError
from espalier_sdk.testing import check_metric


def table(targets: list[list[str] | None], answers: list[str]) -> pa.Table:
    return pa.table({"target": pa.array(targets, pa.list_(pa.string())), "prediction": answers})


TARGETS: list[list[str] | None] = [["Denver Broncos", "The Denver Broncos"], ["in 1999"], ["a red house"], []]
ANSWERS = ["the denver broncos!", "1999", "blue house today", ""]


def test_the_metric_passes_its_kit_with_values_by_hand() -> None:
    # 1; one of two words and one of one: 2/3; one common of two and three: 2/5; none where there is none: 1.
    f1 = (1 + 2 / 3 + 2 / 5 + 1) / 4
    answered = (1 + 2 / 3 + 2 / 5) / 3
    expected = {"squad_exact_match": 0.5, "squad_f1": f1, "squad_f1/answered": answered, "squad_f1/unanswerable": 1.0}
    check_metric("squad", table(TARGETS, ANSWERS), expected=expected)


def test_case_punctuation_articles_and_spaces_do_not_count() -> None:
    assert normalised("  The U.S.  Army's an axe ") == "us armys axe"
    assert score(("The end.",), "end") == (1.0, 1.0)


def test_the_nearest_of_several_answers_counts_and_words_count_as_often_as_they_stand() -> None:
    assert score(("one two", "three"), "three") == (1.0, 1.0)
    assert score(("no no",), "no") == (0.0, pytest.approx(2 / 3))


def test_an_answer_where_there_is_none_is_wrong_and_none_where_there_is_one_too() -> None:
    assert score((), "something") == (0.0, 0.0)
    assert score(("something",), "") == (0.0, 0.0)
    assert score((), "the") == (1.0, 1.0)  # nothing is left of it


def test_rows_whose_answers_are_not_known_are_left_out() -> None:
    known = table([["a b"], None], ["a b", "c"])
    assert Squad(SquadConfig()).values(known) == {"squad_exact_match": 1.0, "squad_f1": 1.0}
    assert Squad(SquadConfig()).rows(known) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("predictions", "words"),
    [
        (table([None], ["a"]), "no prediction has a target"),
        (pa.table({"target": ["a"], "prediction": ["a"]}), "of answers"),
    ],
)
def test_predictions_without_answers_are_refused(predictions: pa.Table, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Squad(SquadConfig()).values(predictions)
