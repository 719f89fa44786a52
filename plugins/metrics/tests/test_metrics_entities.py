"""Entities against values by hand and from seqeval's own documentation."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from espalier_metrics import EntityF1
from espalier_metrics.entities import EntityF1Config
from espalier_sdk.errors import DataError
from espalier_sdk.testing import check_metric


def table(targets: list[list[str] | None], answers: list[list[str]]) -> pa.Table:
    kind = pa.list_(pa.string())
    return pa.table({"target": pa.array(targets, kind), "prediction": pa.array(answers, kind)})


def values(targets: list[list[str] | None], answers: list[list[str]]) -> dict[str, float]:
    return dict(EntityF1(EntityF1Config()).values(table(targets, answers)))


# The example of seqeval's README (https://github.com/chakki-works/seqeval), with its two reports.
TARGETS: list[list[str] | None] = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
ANSWERS = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]


def test_the_metric_passes_its_kit_with_the_values_of_seqevals_readme() -> None:
    check_metric(
        "entity-f1",
        table(TARGETS, ANSWERS),
        expected={
            "micro_entity_f1": 0.5,
            "macro_entity_f1": 0.5,
            "weighted_entity_f1": 0.5,
            "entity_f1/PER": 1.0,
            "entity_f1/MISC": 0.0,
            "micro_entity_precision": 0.5,
            "micro_entity_recall": 0.5,
        },
    )


def test_strict_iob2_knows_no_entity_without_a_beginning() -> None:
    # The second example of that README: the default mode finds NP twice, strict IOB2 finds it once.
    found = values([["B-NP", "I-NP", "O"]], [["I-NP", "I-NP", "O"]])
    assert found["micro_entity_f1"] == 0.0
    assert found["entity_recall/NP"] == 0.0
    assert values([["B-NP", "I-NP", "O"]], [["B-NP", "I-NP", "I-NP"]])["micro_entity_f1"] == 0.0


def by_hand(tags: list[str], row: int) -> set[tuple[int, int, int, str]]:
    """Entities of one row, word for word."""
    found, place = set(), 0
    while place < len(tags):
        end = place + 1
        if tags[place].startswith("B-"):
            while end < len(tags) and tags[end] == f"I-{tags[place][2:]}":
                end += 1
            found.add((row, place, end, tags[place][2:]))
        place = end
    return found


def test_random_tags_are_counted_as_one_counts_them_word_for_word() -> None:
    draw = random.Random(1)
    names = ["O", "B-A", "I-A", "B-B", "I-B", "B-C", "I-C"]
    lengths = [draw.randrange(0, 9) for _ in range(300)]
    targets = [[draw.choice(names) for _ in range(length)] for length in lengths]
    answers = [[tag if draw.random() < 0.8 else draw.choice(names) for tag in tags] for tags in targets]
    wanted = set().union(*(by_hand(tags, row) for row, tags in enumerate(targets)))
    given = set().union(*(by_hand(tags, row) for row, tags in enumerate(answers)))
    found = values(targets, answers)  # type: ignore[arg-type]
    assert found["micro_entity_precision"] == pytest.approx(len(wanted & given) / len(given))
    assert found["micro_entity_recall"] == pytest.approx(len(wanted & given) / len(wanted))
    for kind in "ABC":
        own, mine = {one for one in wanted if one[3] == kind}, {one for one in given if one[3] == kind}
        assert found[f"entity_f1/{kind}"] == pytest.approx(2 * len(own & mine) / (len(own) + len(mine)))


def test_an_entity_does_not_run_into_the_next_row() -> None:
    assert values([["B-A"], ["O"]], [["B-A"], ["I-A"]])["micro_entity_f1"] == 1.0


def test_rows_without_tags_are_left_out_and_cut_words_are_told() -> None:
    known = table([["B-A"], None], [["B-A"], ["B-A"]])
    assert EntityF1(EntityF1Config()).values(known)["micro_entity_f1"] == 1.0
    counted = known.append_column("cut_words", pa.array([2, 5]))
    assert EntityF1(EntityF1Config()).values(counted)["cut_words"] == 7.0


def test_texts_without_any_entity_give_zeros() -> None:
    assert set(values([["O", "O"]], [["O", "O"]]).values()) == {0.0}


@pytest.mark.parametrize(
    ("predictions", "words"),
    [
        (pa.table({"target": ["a"], "prediction": ["a"]}), "no column 'target' of tags"),
        (table([["O", "O"]], [["O"]]), "more or fewer tags"),
        (table([None], [["O"]]), "no prediction has a target"),
    ],
)
def test_predictions_that_are_no_tags_are_refused(predictions: pa.Table, words: str) -> None:
    with pytest.raises(DataError, match=words):
        EntityF1(EntityF1Config()).values(predictions)
