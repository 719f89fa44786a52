"""Metrics of written answers and of likelihood, against other implementations and against sums by hand."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from espalier_metrics import Chrf, ExactMatch, MaskedAccuracy, Perplexity, Rouge, TokenF1
from espalier_metrics.overlap import f1_of_words, is_equal, rouge_scores
from espalier_sdk.errors import DataError
from espalier_sdk.testing import check_metric

ANSWERS = ["The cat sat on the mat.", "a quick brown fox", "It rains in the hills today", "No match here at all"]
TARGETS = [
    "The cat is on the mat",
    "the quick brown fox jumps over the lazy dog",
    "Today it rains in the hills",
    "Something else entirely",
]


def written(answers: list[str | None] = ANSWERS, targets: list[str | None] = TARGETS) -> pa.Table:
    return pa.table({"prediction": pa.array(answers, pa.string()), "target": pa.array(targets, pa.string())})


def scored() -> pa.Table:
    """Three texts: 2 tokens of probability 1/2 and 1/8, none, and 6 tokens of probability 1/4; 16 bits in all."""
    nats = [4 * math.log(2), 0.0, 12 * math.log(2)]
    return pa.table({"nll": nats, "scored_tokens": [2, 0, 6], "scored_bytes": [3, 0, 5], "right_tokens": [1, 0, 2]})


def test_perplexity_passes_its_kit() -> None:
    check_metric("perplexity", scored(), expected={"perplexity": 4.0})  # 16 bits over 8 tokens


def test_masked_accuracy_passes_its_kit() -> None:
    check_metric("masked-accuracy", scored(), expected={"masked_accuracy": 0.375})  # 3 of 8 tokens


def test_bits_per_byte_pass_their_kit() -> None:
    check_metric("bits-per-byte", scored(), expected={"bits_per_byte": 2.0})  # 16 bits over 8 bytes


def test_rouge_passes_its_kit() -> None:
    """Values of rouge-score 0.1.2 (use_stemmer=False), the mean of the four F-measures."""
    expected = {"rouge1": 0.5737179487179487, "rouge2": 0.4409090909090909, "rougeL": 0.532051282051282}
    check_metric("rouge", written(), expected=expected)


def test_chrf_passes_its_kit() -> None:
    """The value of sacrebleu 2.6.0, corpus_chrf with its defaults."""
    check_metric("chrf", written(), expected={"chrf": 45.82732119987197})


@pytest.mark.parametrize(
    ("place", "expected"),
    [(0, 63.67037466576041), (1, 37.4394458767872), (2, 76.94668936155004), (3, 10.087767516857225)],
)
def test_chrf_of_one_sentence_is_that_of_sacrebleu(place: int, expected: float) -> None:
    values = Chrf(Chrf.Config()).values(written().slice(place, 1))
    assert values["chrf"] == pytest.approx(expected, abs=1e-9)


def test_exact_match_passes_its_kit() -> None:
    table = written(["The Eiffel Tower!", "two  cats", "Paris", ""], ["eiffel tower", "Two cats.", "London", "x"])
    check_metric("exact-match", table, expected={"exact_match": 0.5})


def test_token_f1_passes_its_kit() -> None:
    """By hand: `cat sat on mat` and `cat is on mat` share 3 of 4 words; the other row shares nothing."""
    table = written([ANSWERS[0], "nothing"], [TARGETS[0], "at all"])
    check_metric("token-f1", table, expected={"token_f1": (0.75 + 0.0) / 2})


@pytest.mark.parametrize(
    ("answer", "target", "equal", "f1"),
    [("", "", 1.0, 1.0), ("the", "a", 1.0, 1.0), ("", "word", 0.0, 0.0), ("Ü b", "ü", 0.0, 2 / 3)],
)
def test_texts_without_words_agree_with_each_other_alone(answer: str, target: str, equal: float, f1: float) -> None:
    assert is_equal(answer, target) == equal
    assert f1_of_words(answer, target) == pytest.approx(f1)


def test_rouge_l_keeps_the_order_of_words_and_rouge_1_does_not() -> None:
    assert rouge_scores("c b a", "a b c") == (1.0, 0.0, pytest.approx(1 / 3))


def test_a_row_without_a_target_is_left_out_and_one_without_an_answer_is_wrong() -> None:
    table = written(["yes", None, "no"], ["yes", "yes", None])
    metric = ExactMatch(ExactMatch.Config())
    assert metric.values(table) == {"exact_match": 0.5}
    assert metric.rows(table) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("metric", [ExactMatch, TokenF1, Rouge, Chrf])
def test_texts_that_ask_nothing_are_refused_with_what_measures_them(metric) -> None:
    with pytest.raises(DataError, match="perplexity"):
        metric(metric.Config()).values(written([None, None], ["one", "two"]))


def test_predictions_that_were_not_scored_are_refused() -> None:
    with pytest.raises(DataError, match=r"scored_tokens|nll"):
        Perplexity(Perplexity.Config()).values(written())
    with pytest.raises(DataError, match="nothing was scored"):
        Perplexity(Perplexity.Config()).values(scored().slice(1, 1))


def test_a_model_that_guesses_nothing_right_has_no_accuracy_rather_than_an_error() -> None:
    table = pa.table({"scored_tokens": [4], "right_tokens": [0]})
    assert MaskedAccuracy(MaskedAccuracy.Config()).values(table) == {"masked_accuracy": 0.0}


def test_a_model_that_is_sure_of_the_wrong_thing_has_a_finite_perplexity() -> None:
    table = pa.table({"nll": [1e6], "scored_tokens": [1], "scored_bytes": [1]})
    assert math.isfinite(Perplexity(Perplexity.Config()).values(table)["perplexity"])
