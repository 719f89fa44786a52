"""The generation task: kit for each format, where the loss is, what is cut and what never is, and what is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from espalier_sdk.columns import (
    ENCODED_ROW,
    LABELS,
    NLL,
    OTHER_RATING,
    QUESTION,
    RATING,
    SCORED_BYTES,
    SCORED_TOKENS,
    TARGET,
    WRITTEN,
)
from espalier_sdk.errors import DataError
from espalier_sdk.model import Budget, Head
from espalier_sdk.testing import check_task
from espalier_tasks import Generation, GenerationConfig
from espalier_tasks.generation import GenerationState
from pydantic import ValidationError

STATE = GenerationState(rows=3)
PROMPTS = ["Name a colour.", "Say hello to Zoë, please, and take all the time that you need for it.", "2 + 2?"]
ANSWERS = ["Blue.", "Hello Zoë!", "Four, unless somebody has moved the decimal point while nobody was looking."]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Bytes as tokens, with begin and end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ("<pad>", "<s>", "</s>")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_alone = Tokenizer(models.BPE({one: place for place, one in enumerate((*special, *alphabet))}, []))
    bytes_alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_alone.decoder = decoders.ByteLevel()
    make: Any = PreTrainedTokenizerFast
    return make(tokenizer_object=bytes_alone, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def instructions() -> pa.Table:
    return pa.table({"question": PROMPTS, "answer": ANSWERS})


def chat(*contents: str) -> list[dict[str, str]]:
    return [{"role": "assistant" if at % 2 else "user", "content": text} for at, text in enumerate(contents)]


def chats(*rows: Any) -> pa.Table:
    return pa.table({"messages": list(rows)})


def answered_beside() -> pa.Table:
    return chats(chat("a?"), chat("c?", "d", "e?"), chat("g?")).append_column("answer", pa.array(["b", "f", "h" * 90]))


def engine(encoded: pa.Table, head: Head) -> pa.Table:
    """Stands for an opened model: a likelihood by length, and an answer."""
    assert head.kind == "causal-lm"
    lengths = [len(ids) for ids in encoded["input_ids"].to_pylist()]
    return pa.table({NLL: [float(one) for one in lengths], SCORED_TOKENS: lengths, WRITTEN: ["x"] * len(lengths)})


def scores(encoded: pa.Table, head: Head) -> pa.Table:
    return engine(encoded, head).drop_columns([WRITTEN])


def make(**config: Any) -> Generation:
    return Generation(GenerationConfig(**config))


def learned(tokenizer: Any, row: dict[str, Any]) -> str:
    """Returns the text under the labels, special tokens shown."""
    return tokenizer.decode([label for label in row[LABELS] if label != -100])


def encode(task: Generation, rows: pa.Table, tokenizer: Any, max_tokens: int = 256) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = task.encode(
        rows, state=STATE, tokenizer=tokenizer, budget=Budget(max_tokens)
    ).to_pylist()
    return found


@pytest.mark.parametrize(
    ("config", "rows", "answer", "question", "refused"),
    [
        (
            {"prompt": "question", "completion": "answer"},
            instructions,
            engine,
            {"question": "Who?"},
            [{"question": " "}, {"question": 3}, {}, {"question": "Who?", "answer": "I"}],
        ),
        (
            {"text": "body"},
            lambda: pa.table({"body": ["one two three", "Zoë " * 30, "", "end"]}),
            scores,
            {"prompt": "Once"},
            [{"prompt": ""}, {"body": "Once"}],
        ),
        (
            {"messages": "messages"},
            lambda: chats(chat("a?", "b"), chat("c?", "d", "e?", "f"), chat("g?", "h" * 90)),
            engine,
            {"messages": chat("a?")},
            [
                {"messages": []},
                {"messages": chat("a?", "b")},
                {"messages": [{"role": "robot", "content": "a"}]},
                {"messages": "a?"},
            ],
        ),
        (
            {"messages": "messages", "completion": "answer"},
            answered_beside,
            engine,
            {"messages": chat("a?")},
            [{"messages": chat("a?", "b")}, {"messages": chat("a?"), "answer": "b"}],
        ),
    ],
    ids=["instructions", "texts", "chats", "chats and answers"],
)
def test_generation_passes_its_kit(
    tokenizer: Any, config: dict, rows: Callable[[], pa.Table], answer: Any, question: dict, refused: list
) -> None:
    table = rows()
    state = check_task(
        "generation", config, table, tokenizer=tokenizer, answer=answer, question=question, refused=refused
    )
    assert state.rows == table.num_rows


def test_the_loss_is_on_the_answer_and_its_end_alone(tokenizer: Any) -> None:
    first = encode(make(prompt="question", completion="answer"), instructions(), tokenizer)[0]
    assert learned(tokenizer, first) == "Blue.</s>"
    assert tokenizer.decode(first["input_ids"]) == "<s><|user|>\nName a colour.\n<|assistant|>\nBlue.</s>"
    assert first[SCORED_BYTES] == len("Blue.")
    assert first[TARGET] == "Blue."


def test_each_answer_of_a_chat_is_learned_and_the_last_one_is_the_target(tokenizer: Any) -> None:
    row = encode(make(messages="messages"), chats(chat("a?", "bé", "c?", "d")), tokenizer)[0]
    assert learned(tokenizer, row) == "bé</s>d</s>"
    assert (row[TARGET], row[SCORED_BYTES]) == ("d", 4)


def test_messages_may_be_json_text(tokenizer: Any) -> None:
    one = chat("a?", "b")
    task = make(messages="messages")
    assert encode(task, chats(json.dumps(one)), tokenizer) == encode(task, chats(one), tokenizer)


def test_a_system_message_comes_first(tokenizer: Any) -> None:
    row = encode(make(prompt="question", completion="answer", system="Be brief."), instructions(), tokenizer)[0]
    assert tokenizer.decode(row["input_ids"]).startswith("<s><|system|>\nBe brief.\n<|user|>\nName")


@pytest.mark.parametrize("max_tokens", [16, 33, 40, 64])
def test_what_is_too_long_loses_the_questions_beginning_and_the_answers_end_never_all_of_one(
    tokenizer: Any, max_tokens: int
) -> None:
    for place, row in enumerate(
        encode(make(prompt="question", completion="answer"), instructions(), tokenizer, max_tokens)
    ):
        asked = [label for label in row[LABELS] if label == -100]
        said = learned(tokenizer, row)
        assert len(row["input_ids"]) <= max_tokens
        assert len(asked) >= max_tokens // 4
        assert row["input_ids"][0] == tokenizer.bos_token_id
        assert f"{ANSWERS[place]}</s>".startswith(said.rstrip("\ufffd"))
        assert len(said) >= min(len(ANSWERS[place]), max_tokens // 2)
        if len(said) < len(ANSWERS[place]):  # what is scored is what was kept, not what was asked for
            assert row[SCORED_BYTES] == len(said.encode())
        assert tokenizer.decode(row["input_ids"][: len(asked)]).endswith("|>\n")


def test_a_long_text_is_predicted_token_by_token_exactly_once(tokenizer: Any) -> None:
    text = "abcdefghijklmnopqrstuvwxyz" * 3
    rows = encode(make(text="body"), pa.table({"body": ["x", text, "y"]}), tokenizer, 16)
    parts = [row for row in rows if row[ENCODED_ROW] == 1]
    assert len(parts) == 6
    assert "".join(learned(tokenizer, row) for row in parts) == f"{text}</s>"
    assert all(row[LABELS][0] == -100 for row in rows)
    assert [row[SCORED_BYTES] for row in parts] == [len(text), 0, 0, 0, 0, 0]
    assert [row[TARGET] for row in parts] == [text, None, None, None, None, None]


@pytest.mark.parametrize("text", ["abc", "Zoë " * 9, "ëa", "日本", " a", "\ufffda", "a"])
@pytest.mark.parametrize("max_tokens", [4, 64])
def test_bytes_are_counted_of_the_tokens_that_are_predicted_begin_token_or_not(
    tokenizer: Any, text: str, max_tokens: int
) -> None:
    without = copy.deepcopy(tokenizer)
    without.bos_token = None
    for one, unscored in ((tokenizer, 0), (without, 1)):  # a token is a byte
        rows = encode(make(text="body"), pa.table({"body": [text]}), one, max_tokens)
        predicted = [label for row in rows for label in row[LABELS] if label != -100]
        assert len(predicted) == len(text.encode()) - unscored + 1  # and the end
        assert sum(row[SCORED_BYTES] for row in rows) == len(text.encode()) - unscored


@pytest.mark.parametrize(
    ("text", "counted"),
    [("ab cd", 3), ("a", 0), ("", 0), ("éa", 1), ("日a", 1 + 1), ("\n\n", 0), ("<end>a", 1)],
)
def test_bytes_of_a_first_token_that_is_not_predicted_are_not_counted_however_many(text: str, counted: int) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("Ã", "©"), ("æ", "Ĺ"), ("Ċ", "Ċ")]  # ab, é, two bytes of 日's three, two line ends
    words = ["<end>", *alphabet, *("".join(pair) for pair in merges)]
    bytes_merged = Tokenizer(models.BPE({word: place for place, word in enumerate(words)}, merges))
    bytes_merged.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_merged.decoder = decoders.ByteLevel()
    made: Any = PreTrainedTokenizerFast
    tokenizer = made(tokenizer_object=bytes_merged, eos_token=AddedToken("<end>", special=True))
    rows = encode(make(text="body"), pa.table({"body": [text]}), tokenizer)
    assert [row[SCORED_BYTES] for row in rows] == [counted]


def test_the_parts_of_a_text_are_added_up(tokenizer: Any) -> None:
    task = make(text="body")
    encoded = task.encode(pa.table({"body": ["x" * 40, "y"]}), state=STATE, tokenizer=tokenizer, budget=Budget(16))
    decoded = task.decode(scores(encoded, task.head(STATE)), encoded, state=STATE).to_pylist()
    assert [row[ENCODED_ROW] for row in decoded] == [0, 1]
    assert [row[SCORED_TOKENS] for row in decoded] == [16 + 16 + 12, 3]  # with the tokens that are repeated
    assert [row[TARGET] for row in decoded] == ["x" * 40, "y"]
    assert [row["prediction"] for row in decoded] == [None, None]


def test_what_is_asked_ends_where_an_answer_begins_whether_one_is_given_or_not(tokenizer: Any) -> None:
    task, budget = make(prompt="question", completion="answer", max_new_tokens=20), Budget(256)
    whole = task.questions(instructions(), tokenizer=tokenizer, budget=budget)
    alone = task.questions(instructions().select(["question"]), tokenizer=tokenizer, budget=budget)
    assert whole is not None
    assert whole.equals(alone)
    trained = encode(task, instructions(), tokenizer)
    for row, ids in zip(trained, whole["input_ids"].to_pylist(), strict=True):
        assert row["input_ids"][: len(ids)] == ids
        assert set(row[LABELS][: len(ids)]) == {-100}
    assert whole[QUESTION].to_pylist() == PROMPTS
    none = instructions().set_column(1, "answer", pa.array([None] * len(PROMPTS), pa.string()))
    assert whole.equals(task.questions(none, tokenizer=tokenizer, budget=budget))


def test_question_and_answer_together_keep_within_the_budget(tokenizer: Any) -> None:
    for new in (1, 10, 500):
        task, budget = make(prompt="question", completion="answer", max_new_tokens=new), Budget(32)
        asked = task.questions(instructions(), tokenizer=tokenizer, budget=budget)
        settings = task.settings(tokenizer=tokenizer, budget=budget)
        assert asked is not None
        longest = max(len(ids) for ids in asked["input_ids"].to_pylist())
        assert longest + int(settings["max_new_tokens"]) == 32  # type: ignore[call-overload]


def test_a_text_is_written_on_from_a_prompt_and_not_otherwise(tokenizer: Any) -> None:
    task, budget = make(text="body"), Budget(32)
    assert task.questions(pa.table({"body": ["one"]}), tokenizer=tokenizer, budget=budget) is None
    asked = task.questions(pa.table({"prompt": ["one"]}), tokenizer=tokenizer, budget=budget)
    assert asked is not None
    assert tokenizer.decode(asked["input_ids"][0].as_py()) == "<s>one"


def test_a_chat_without_an_answer_is_refused_with_its_line(tokenizer: Any) -> None:
    rows = chats(chat("a?", "b"), chat("c?")).append_column("espalier_origin", pa.array(["chats.jsonl"] * 2))
    rows = rows.append_column("espalier_line", pa.array([4, 9]))
    task = make(messages="messages")
    with pytest.raises(DataError, match=r"chats\.jsonl:9: messages: the chat ends without an answer"):
        task.observe(rows)
    with pytest.raises(DataError, match="row 1: the chat ends without an answer"):
        encode(task, rows.select(["messages"]), tokenizer)


def test_an_answer_beside_its_chat_is_learned_as_one_in_it(tokenizer: Any) -> None:
    inside = chats(chat("a?", "b"), chat("c?", "d", "e?", "f"), chat("g?", "h" * 90))
    task, budget = make(messages="messages", completion="answer"), Budget(256)
    assert encode(task, answered_beside(), tokenizer) == encode(make(messages="messages"), inside, tokenizer)
    assert list(task.texts(answered_beside())) == ["a?", "c?", "d", "e?", "g?", "b", "f", "h" * 90]
    asked = task.questions(answered_beside(), tokenizer=tokenizer, budget=budget)
    alone = task.questions(answered_beside().select(["messages"]), tokenizer=tokenizer, budget=budget)
    assert asked is not None
    assert asked.equals(alone)
    assert asked[QUESTION].to_pylist() == ["a?", "e?", "g?"]
    assert task.observe(answered_beside().select(["messages"])).rows == 3


def test_a_chat_that_is_answered_twice_is_refused_with_its_row() -> None:
    rows = chats(chat("a?"), chat("c?", "d")).append_column("answer", pa.array(["b", "e"]))
    with pytest.raises(DataError, match="row 1: the chat ends with an answer, and column 'answer' holds another"):
        make(messages="messages", completion="answer").observe(rows)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("[{", "no JSON list"),
        ("[]", "holds no message"),
        (json.dumps([{"role": "robot", "content": "a"}]), "role is 'robot'"),
        (json.dumps([{"role": "user", "content": ""}]), "content is ''"),
        (json.dumps([{"role": "assistant", "content": "a"}]), "begins with an answer"),
        (json.dumps(["a"]), "role is None"),
    ],
)
def test_a_chat_that_cannot_be_read_is_refused_with_row_and_reason(value: str, words: str) -> None:
    with pytest.raises(DataError, match=f"row 0: the chat .*{words}"):
        make(messages="messages").observe(chats(value))


def test_a_template_that_changes_earlier_turns_is_refused(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{{ messages | length }}{% for one in messages %}{{ one['content'] }}{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(DataError, match="template changes a turn"):
        encode(make(messages="messages"), chats(chat("a?", "b", "c?", "d")), tokenizer)


def test_a_tokenizers_own_template_is_used(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    template = (
        "{% for one in messages %}[{{ one['role'][0] }}]{{ one['content'] }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}[a]{% endif %}"
    )
    monkeypatch.setattr(tokenizer, "chat_template", template)
    row = encode(make(messages="messages"), chats(chat("q", "r")), tokenizer)[0]
    assert tokenizer.decode(row["input_ids"]) == "[u]q</s>[a]r</s>"
    assert learned(tokenizer, row) == "r</s>"


def test_a_tokenizer_without_an_end_is_refused(tokenizer: Any) -> None:
    make_again: Any = type(tokenizer)
    tokenizer = make_again(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>", bos_token="<s>")
    with pytest.raises(DataError, match="no end token"):
        encode(make(text="body"), pa.table({"body": ["one"]}), tokenizer)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "one format"),
        ({"text": "a", "messages": "b"}, "one format"),
        ({"prompt": "a"}, "one format"),
        ({"text": "a", "completion": "b"}, "needs `prompt`"),
        ({"messages": "a", "prompt": "b"}, "hold the questions already"),
        ({"text": "a", "system": "b"}, "system"),
        ({"prompt": "a", "completion": "a"}, "at once"),
        ({"messages": "a", "completion": "a"}, "at once"),
        ({"text": "a", "rejected": "b"}, "`text` has none"),
        ({"prompt": "a", "completion": "b", "rejected": "b"}, "the better and the other answer at once"),
    ],
)
def test_columns_that_are_no_format_are_refused(config: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        GenerationConfig(**config)


def test_an_own_tokenizer_is_trained_on_all_that_is_said() -> None:
    assert list(make(messages="messages").texts(chats(chat("a?", "b")))) == ["a?", "b"]
    assert list(make(prompt="question", completion="answer").texts(instructions())) == PROMPTS + ANSWERS


def test_a_response_is_read_from_a_row_or_from_itself() -> None:
    response = make(text="body").response(STATE)
    read = response.model_validate({"prediction": "x", "nll": 0.0, "scored_tokens": 4})
    assert read.model_dump() == {"text": "x", "perplexity": 1.0, "rating": None}
    assert response.model_validate({"rating": -0.5}).model_dump() == {"text": None, "perplexity": None, "rating": -0.5}
    assert response.model_validate(read.model_dump()) == read


def test_a_second_answer_stands_where_the_first_did_and_is_refused_where_it_is_missing() -> None:
    task = make(prompt="question", completion="answer", rejected="worse")
    assert task.columns().required == {"question": "text", "answer": "answer", "worse": "answer"}
    others = task.others(instructions().append_column("worse", pa.array(["a", "b", "c"])))
    assert others is not None
    assert others.column("answer").to_pylist() == ["a", "b", "c"]
    assert task.others(instructions()) is None
    assert make(prompt="question", completion="answer").others(instructions()) is None
    with pytest.raises(DataError, match="row 1: there is no answer"):
        task.others(instructions().append_column("worse", pa.array(["a", "", "c"])))


def test_ratings_pass_through(tokenizer: Any) -> None:
    task = make(prompt="question", completion="answer", rejected="worse")
    encoded = task.encode(instructions(), state=STATE, tokenizer=tokenizer, budget=Budget(256))
    rated = {ENCODED_ROW: [0, 1, 2], RATING: [1.0, 2.0, 3.0], OTHER_RATING: [0.0, 4.0, 5.0]}
    found = task.decode(pa.table(rated), encoded, state=STATE).to_pydict()
    assert {name: found[name] for name in rated} == rated
    assert found["prediction"] == [None] * 3
