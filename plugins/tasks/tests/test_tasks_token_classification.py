"""The task of tags: kit, labels on first tokens, words beyond the budget, spans, and what is refused."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from espalier_sdk.errors import DataError
from espalier_sdk.model import Budget, Head
from espalier_sdk.testing import check_task
from espalier_tasks import TokenClassification, TokenClassificationConfig
from espalier_tasks.tags import entities, fault, repaired, tags_of, words_of
from espalier_tasks.token_classification import first_tokens
from pydantic import ValidationError

WORDS = [["abcab", "de", "a"], ["e", "abcdeabc"], ["ab"], ["a", "b", "c", "d", "e", "a"]]
TAGS = [["B-PER", "I-PER", "O"], ["O", "B-ORG"], ["O"], ["O", "O", "O", "O", "O", "B-PER"]]
CONFIG = {"tokens": "words", "tags": "tags"}


def table(words: list[list[str]] = WORDS, tags: list[list[str] | None] = TAGS) -> pa.Table:  # type: ignore[assignment]
    kind = pa.list_(pa.string())
    return pa.table({"words": pa.array(words, kind), "tags": pa.array(tags, kind)})


def made(**config: Any) -> TokenClassification:
    return TokenClassification(TokenClassificationConfig.model_validate(config or CONFIG))


def answer(encoded: pa.Table, head: Head) -> pa.Table:
    """An engine that answers by the token."""
    rows = [
        [[float((token * (tag + 3)) % 7) for tag in range(head.outputs)] for token in ids]
        for ids in encoded["input_ids"].to_pylist()
    ]
    return pa.table({"logits": pa.array(rows, pa.list_(pa.list_(pa.float32())))})


def of_tags(encoded: pa.Table, tags: list[list[str]], labels: tuple[str, ...]) -> pa.Table:
    """An engine that answers these tags on the first token of each word."""
    rows = []
    for ids, first, wanted in zip(
        encoded["input_ids"].to_pylist(), encoded["espalier_first"].to_pylist(), tags, strict=True
    ):
        logits = [[0.0] * len(labels) for _ in ids]
        for place, tag in zip(first, wanted, strict=True):
            if place >= 0:
                logits[place][labels.index(tag)] = 9.0
        rows.append(logits)
    return pa.table({"logits": pa.array(rows, pa.list_(pa.list_(pa.float32())))})


def test_words_and_tags_pass_the_kit(pieces: Any) -> None:
    state = check_task(
        "token-classification",
        CONFIG,
        table(),
        tokenizer=pieces,
        answer=answer,
        question={"words": ["a", "b"]},
        refused=[{}, {"words": "a b"}, {"words": []}, {"words": ["a"], "tags": ["O"]}],
        budget=Budget(max_tokens=6),
    )
    assert state.labels == ("O", "B-ORG", "I-ORG", "B-PER", "I-PER")
    assert state.counts == {"ORG": 1, "PER": 2}


def test_text_and_spans_pass_the_kit(pieces: Any) -> None:
    spans = [[{"start": 0, "end": 5, "label": "PER"}], [], [{"start": 2, "end": 6, "label": "ORG"}]]
    rows = pa.table({"text": ["abcab, de", "e", "a bcd, e"], "found": spans})
    state = check_task(
        "token-classification",
        {"text": "text", "spans": "found", "labels": ["PER", "ORG"]},
        rows,
        tokenizer=pieces,
        answer=answer,
        question={"text": "a b"},
        refused=[{}, {"text": ""}, {"text": ["a"]}],
    )
    assert state.labels == ("O", "B-PER", "I-PER", "B-ORG", "I-ORG")


def test_labels_stand_on_the_first_token_of_each_word(pieces: Any) -> None:
    task = made()
    state = task.finish(task.observe(table()))
    encoded = task.encode(table(), state=state, tokenizer=pieces, budget=Budget(max_tokens=16))
    # [CLS] abc ##ab de a [SEP]
    assert encoded["labels"].to_pylist()[0] == [-100, 3, -100, 4, 0, -100]
    assert encoded["espalier_first"].to_pylist()[0] == [1, 3, 4]


def test_words_beyond_the_budget_are_outside_counted_and_keep_their_target(pieces: Any) -> None:
    task = made()
    state = task.finish(task.observe(table()))
    encoded = task.encode(table(), state=state, tokenizer=pieces, budget=Budget(max_tokens=5))
    decoded = task.decode(of_tags(encoded, TAGS, state.labels), encoded, state=state)
    assert encoded["input_ids"].to_pylist()[3][-1] == 3  # the last token still ends the text
    assert decoded["prediction"].to_pylist()[3] == ["O"] * 6
    assert decoded["target"].to_pylist()[3] == TAGS[3]
    assert decoded["cut_words"].to_pylist() == [1, 0, 0, 3]
    assert decoded["scores"].to_pylist()[3][3:] == [0, 0, 0]
    assert decoded["prediction"].to_pylist()[:3] == TAGS[:3]


def test_a_text_is_answered_with_its_entities(pieces: Any) -> None:
    task = made(text="text", spans="found")
    rows = pa.table({"text": ["abcab de, a"], "found": [[{"start": 0, "end": 8, "label": "PER"}]]})
    state = task.finish(task.observe(rows))
    encoded = task.encode(rows, state=state, tokenizer=pieces, budget=Budget(max_tokens=16))
    decoded = task.decode(of_tags(encoded, [["B-PER", "I-PER", "O", "O"]], state.labels), encoded, state=state)
    found = task.response(state).model_validate(decoded.to_pylist()[0]).model_dump()["entities"]
    assert [(one["start"], one["end"], one["label"]) for one in found] == [(0, 8, "PER")]
    assert 0.9 < found[0]["score"] <= 1
    assert decoded["target"].to_pylist() == decoded["prediction"].to_pylist()


def test_an_inside_tag_that_goes_on_with_nothing_begins_an_entity() -> None:
    assert repaired(["I-A", "I-A", "O", "B-A", "I-B", "I-B"]) == ["B-A", "I-A", "O", "B-A", "B-B", "I-B"]


def test_a_span_is_widened_to_whole_words_and_two_may_not_share_one() -> None:
    words = words_of("see doc-1, now")
    assert [("see doc-1, now")[start:end] for start, end in words] == ["see", "doc", "-", "1", ",", "now"]
    assert tags_of([{"start": 5, "end": 9, "label": "ID"}], words) == ["O", "B-ID", "I-ID", "I-ID", "O", "O"]
    with pytest.raises(ValueError, match="shares a word"):
        tags_of([{"start": 4, "end": 6, "label": "ID"}, {"start": 6, "end": 9, "label": "ID"}], words)
    with pytest.raises(ValueError, match="holds no word"):
        tags_of([{"start": 3, "end": 4, "label": "ID"}], words)


@pytest.mark.parametrize(
    ("span", "words"),
    [
        ({"start": 3, "end": 7, "label": "ID"}, r"white space: it holds ' doc'"),
        ({"start": 4, "end": 8, "label": "ID"}, r"white space: it holds 'doc '"),
        ({"start": 8, "end": 12, "label": "ID"}, "ends beyond the text, which has 9 characters"),
        ({"start": 4, "end": 7, "label": "ID", "text": "oc 1"}, "holds 'doc', which is not its text"),
    ],
)
def test_a_span_that_was_made_of_another_text_is_refused_with_the_row(span: dict[str, Any], words: str) -> None:
    task = made(text="text", spans="found")
    fits = {"start": 4, "end": 9, "label": "ID", "text": "doc 1"}
    task.observe(pa.table({"text": ["see doc 1", "see doc 1"], "found": [[fits], [{**fits, "text": None}]]}))
    with pytest.raises(DataError, match=words) as refused:
        task.observe(pa.table({"text": ["see doc 1"], "found": [[span]]}))
    assert "row 'see doc 1'" in str(refused.value)


def test_entities_have_the_least_score_of_their_words() -> None:
    found = entities(["O", "B-A", "I-A", "B-A"], [(0, 1), (2, 3), (4, 5), (6, 7)], [1.0, 0.9, 0.6, 0.7])
    assert found == [
        {"start": 2, "end": 5, "label": "A", "score": 0.6},
        {"start": 6, "end": 7, "label": "A", "score": 0.7},
    ]


def test_a_token_belongs_to_the_word_that_holds_its_last_character() -> None:
    # Byte-level tokenizers put the space before a word into its token.
    assert first_tokens([(0, 2), (3, 5), (6, 7)], [(0, 0), (0, 2), (2, 5), (5, 7), (0, 0)]) == [1, 2, 3]
    assert first_tokens([(0, 2), (2, 2), (3, 5)], [(0, 0), (0, 1), (1, 2), (0, 0)]) == [1, -1, -1]


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (["O", "I-A"], r"begins with 'B-A'"),
        (["B-A", "I-B"], r"begins with 'B-B'"),
        (["A", "O"], "none of O, B-x and I-x"),
        (["B-", "O"], "none of O, B-x and I-x"),
        (["O"], "2 words have 1 tags"),
    ],
)
def test_tags_that_are_not_iob2_are_refused_with_the_row(tags: list[str], words: str) -> None:
    with pytest.raises(DataError, match=words) as refused:
        made().observe(table([["ab", "cd"]], [tags]))
    assert refused.value.problems[0].field == "tags"
    assert "ab cd" in str(refused.value)


def test_a_type_outside_the_declared_ones_is_refused_with_the_nearest() -> None:
    task = made(**CONFIG, labels=("PERS", "ORG"))
    with pytest.raises(DataError, match=r"2 entities of type 'PER'.*did you mean 'PERS'"):
        task.finish(task.observe(table()))


def test_rows_without_a_word_and_columns_without_an_entity_are_refused() -> None:
    with pytest.raises(DataError, match="there is no word"):
        made().observe(table([[]], [[]]))
    with pytest.raises(DataError, match="no entity"):
        task = made()
        task.finish(task.observe(table([["a"]], [["O"]])))


def test_text_in_the_column_of_words_is_refused() -> None:
    with pytest.raises(DataError, match="no list of words"):
        made().observe(pa.table({"words": ["a b"], "tags": [["O"]]}))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"tokens": "a"},
        {"tokens": "a", "spans": "b"},
        {"tokens": "a", "tags": "a"},
        {"tokens": "a", "tags": "b", "text": "c"},
        {"tokens": "a", "tags": "b", "labels": ["X", "X"]},
    ],
)
def test_columns_that_do_not_go_together_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TokenClassificationConfig.model_validate(config)


def test_a_type_that_training_never_saw_is_not_learned_from_and_stays_in_the_target(pieces: Any) -> None:
    task = made()
    state = task.finish(task.observe(table()))
    rows = table([["a", "b"]], [["B-NEW", "O"]])
    encoded = task.encode(rows, state=state, tokenizer=pieces, budget=Budget(max_tokens=8))
    assert encoded["labels"].to_pylist() == [[-100, -100, 0, -100]]
    assert encoded["target"].to_pylist() == [["B-NEW", "O"]]


def test_faults_are_none_for_iob2() -> None:
    assert fault(["B-A", "I-A", "B-A", "O", "B-B", "I-B"]) is None
