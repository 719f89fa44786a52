"""The task of questions: kit, windows over long contexts, positions, the best answer of all, what is refused."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from espalier_sdk.errors import DataError
from espalier_sdk.model import Budget, Head
from espalier_sdk.testing import check_task
from espalier_tasks import QuestionAnswering, QuestionAnsweringConfig
from espalier_tasks.question_answering import AnswersState
from espalier_tasks.windows import best_span
from pydantic import ValidationError

LONG = "a b c d e aa bb cc dd ee ab bc cd de ea abc bcd"
ROWS = [
    {"question": "abc?", "context": LONG, "answers": [{"text": "cc dd", "start": 16}]},
    {"question": "e?", "context": "abcde, e a", "answers": [{"text": "e", "start": 7}, {"text": "e a", "start": 7}]},
    {"question": "d?", "context": "a b", "answers": []},
    {"question": "a b c d e a b c d e a b c d e", "context": LONG, "answers": [{"text": "a", "start": 0}]},
]


def table(rows: list[dict[str, Any]] = ROWS) -> pa.Table:
    return pa.Table.from_pylist(rows)


def made(**config: Any) -> QuestionAnswering:
    return QuestionAnswering(QuestionAnsweringConfig.model_validate(config))


def answer(encoded: pa.Table, head: Head) -> pa.Table:
    """An engine that answers by the token."""
    rows = [[[float(one % 7), float(one % 5)] for one in ids] for ids in encoded["input_ids"].to_pylist()]
    return pa.table({"logits": pa.array(rows, pa.list_(pa.list_(pa.float32())))})


def at_positions(encoded: pa.Table, *, none: float = 0.0, right: float = 9.0) -> pa.Table:
    """An engine that is right: it scores the positions that training would show it."""
    rows = []
    for ids, start, end in zip(
        *(encoded[name].to_pylist() for name in ("input_ids", "start_positions", "end_positions")), strict=True
    ):
        logits = [[0.0, 0.0] for _ in ids]
        logits[0] = [none, none]
        if start:
            logits[start][0] = right
            logits[end][1] = right
        rows.append(logits)
    return pa.table({"logits": pa.array(rows, pa.list_(pa.list_(pa.float32())))})


def encode(task: QuestionAnswering, rows: pa.Table, tokenizer: Any, max_tokens: int = 12) -> pa.Table:
    return task.encode(rows, state=AnswersState(), tokenizer=tokenizer, budget=Budget(max_tokens=max_tokens))


def test_questions_pass_the_kit(pieces: Any) -> None:
    state = check_task(
        "question-answering",
        {"stride": 3},
        table(),
        tokenizer=pieces,
        answer=answer,
        question={"question": "a?", "context": "a b"},
        refused=[{}, {"question": "a"}, {"question": "", "context": "a"}, {"question": "a", "context": 3}],
        budget=Budget(max_tokens=12),
    )
    assert (state.answered, state.unanswerable) == (3, 1)


@pytest.mark.parametrize("stride", [0, 2, 3, 50])
def test_windows_hold_every_token_of_the_context_and_overlap_by_the_stride(pieces: Any, stride: int) -> None:
    encoded = encode(made(stride=stride), table(ROWS[:1]), pieces)
    held = [
        {(start, end) for start, end in zip(flat[::2], flat[1::2], strict=True) if start >= 0}
        for flat in encoded["espalier_offsets"].to_pylist()
    ]
    words = LONG.split()
    places = [(len(" ".join(words[:at])) + (at > 0), len(" ".join(words[: at + 1]))) for at in range(len(words))]
    assert set().union(*held) == set(places)
    assert all(len(ids) <= 12 for ids in encoded["input_ids"].to_pylist())
    # [CLS] abc ? [SEP] seven tokens [SEP]: a stride of more than half of the seven would hardly go on.
    assert all(len(left & right) == min(stride, 3) for left, right in pairwise(held[:-1]))


def test_positions_are_those_of_the_answer_in_the_windows_that_hold_all_of_it(pieces: Any) -> None:
    encoded = encode(made(stride=2), table(ROWS[:1]), pieces)
    shown = []
    for ids, start, end in zip(
        *(encoded[name].to_pylist() for name in ("input_ids", "start_positions", "end_positions")), strict=True
    ):
        shown.append(pieces.decode(ids[start : end + 1]) if start else None)
    assert "cc dd" in shown
    assert set(shown) == {"cc dd", None}


@pytest.mark.parametrize("max_tokens", [9, 12, 40])
def test_a_right_model_is_decoded_to_the_very_answers_however_small_the_windows(pieces: Any, max_tokens: int) -> None:
    task, rows = made(stride=4), table()
    state = task.finish(task.observe(rows))
    encoded = encode(task, rows, pieces, max_tokens)
    decoded = task.decode(at_positions(encoded, none=1.0), encoded, state=state)
    assert decoded["prediction"].to_pylist() == ["cc dd", "e", "", "a"]
    assert decoded["start"].to_pylist() == [16, 7, None, 0]
    assert decoded["target"].to_pylist() == [["cc dd"], ["e", "e a"], [], ["a"]]
    found = task.response(state).model_validate(decoded.to_pylist()[0]).model_dump()
    assert found["answer"] == "cc dd"
    assert LONG[found["start"] : found["end"]] == "cc dd"


@pytest.fixture(scope="module")
def spaced() -> Any:
    """Tokens that begin with the space before a word, and offsets that say so."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["the", "Ġcat", "Ġsat", "Ġin", "ĠParis", "Ġtoday", "where", "ĠĠ"]
    vocabulary = {word: place for place, word in enumerate(["<pad>", "<unk>", "<s>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>")


@pytest.mark.parametrize("text", ["Paris", " Paris", "in Paris"])
def test_the_space_that_a_token_begins_with_is_no_part_of_the_answer(spaced: Any, text: str) -> None:
    task, context = made(), "the cat sat in Paris today"
    answers = [{"text": text, "start": context.index(text)}]
    rows = table([{"question": "where", "context": context, "answers": answers}])
    encoded = encode(task, rows, spaced)
    found = task.decode(at_positions(encoded), encoded, state=AnswersState(answered=1)).to_pylist()[0]
    assert found["prediction"] == text.strip()
    assert (found["start"], found["end"]) == (context.index(text.strip()), context.index(" today"))


def test_white_space_alone_is_never_answered(spaced: Any) -> None:
    rows = table([{"question": "where", "context": "the  ", "answers": [{"text": "the", "start": 0}]}])
    encoded = encode(made(), rows, spaced)
    assert spaced.convert_ids_to_tokens(encoded["input_ids"].to_pylist()[0])[-2:] == ["the", "ĠĠ"]
    last = [[0.0, 0.0]] * (len(encoded["input_ids"][0]) - 1) + [[9.0, 9.0]]
    outputs = pa.table({"logits": pa.array([last], pa.list_(pa.list_(pa.float32())))})
    found = made().decode(outputs, encoded, state=AnswersState(answered=1)).to_pylist()[0]
    assert (found["prediction"], found["start"], found["end"]) == ("the", 0, 3)


def test_none_is_answered_only_above_the_threshold_and_where_training_had_such_questions(pieces: Any) -> None:
    rows = table(ROWS[1:2])
    for state, threshold, wanted in (
        (AnswersState(answered=1), 0.0, "e"),
        (AnswersState(answered=1, unanswerable=1), 0.0, ""),
        (AnswersState(answered=1, unanswerable=1), 3.0, "e"),
    ):
        task = made(null_threshold=threshold)
        encoded = encode(task, rows, pieces, 40)
        outputs = at_positions(encoded, none=6.0, right=5.0)  # 12 against 10
        assert task.decode(outputs, encoded, state=state)["prediction"].to_pylist() == [wanted]


def test_the_best_span_is_short_enough_lies_in_the_context_and_does_not_end_before_it_begins() -> None:
    logits = np.array([[9, 9], [0, 8], [5, 0], [0, 3], [0, 0], [0, 7]], dtype=np.float32)
    inside = np.array([False, True, True, True, True, True])
    assert best_span(logits, inside, longest=2) == (8.0, 1, 1)
    assert best_span(logits, inside, longest=9) == (12.0, 2, 5)
    assert best_span(logits, np.zeros(6, bool), longest=9) is None


def test_answers_in_the_form_of_squad_are_read(pieces: Any) -> None:
    answers = [{"text": ["e"], "answer_start": [7]}, {"text": [], "answer_start": []}]
    rows = [{**row, "answers": one} for row, one in zip(ROWS[1:3], answers, strict=True)]
    kind = pa.struct({"text": pa.list_(pa.string()), "answer_start": pa.list_(pa.int64())})  # type: ignore[arg-type]
    given = pa.table(
        {
            "question": [row["question"] for row in rows],
            "context": [row["context"] for row in rows],
            "answers": pa.array([row["answers"] for row in rows], kind),
        }
    )
    assert made().targets(given).to_pylist() == [["e"], []]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([{"text": "cc", "start": 1}], r"'cc' does not stand at 1 of its context, but at 16"),
        ([{"text": "no", "start": 0}], r"'no' does not stand at 0 of its context$"),
        ([{"text": "", "start": 0}], "needs a text and a start"),
        ([{"text": "a"}], "needs a text and a start"),
        ([{"text": "a", "start": -17}], "does not stand at -17"),
    ],
)
def test_an_answer_that_is_not_in_its_context_is_refused_with_row_and_field(answers: Any, words: str) -> None:
    rows = pa.concat_tables([table(ROWS[1:2]), table([{**ROWS[0], "answers": answers}])], promote_options="permissive")
    rows = rows.append_column("espalier_origin", pa.array(["a.jsonl"] * 2))
    rows = rows.append_column("espalier_line", pa.array([4, 9]))
    with pytest.raises(DataError, match=r"row 1, 'abc\?'") as refused:
        made().observe(rows)
    problem = refused.value.problems[0]
    assert (problem.file, problem.line, problem.field) == ("a.jsonl", 9, "answers")
    assert re.search(words, problem.message)


def test_answers_of_another_shape_and_data_without_an_answer_are_refused() -> None:
    with pytest.raises(DataError, match=r"no list of \{text, start\}"):
        made().observe(pa.table({"question": ["a"], "context": ["b"], "answers": ["b"]}))
    with pytest.raises(DataError, match="has no answer in the train split"):
        task = made()
        task.finish(task.observe(table(ROWS[2:3])))
    with pytest.raises(ValidationError, match="three columns"):
        QuestionAnsweringConfig(question="a", context="a")
