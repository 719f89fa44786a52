"""The classification task: kit, label map, encoding, decoding, request and response."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from espalier_sdk.errors import DataError
from espalier_sdk.model import Budget, Head
from espalier_sdk.testing import check_task
from espalier_tasks import Classification, ClassificationConfig
from espalier_tasks.labels import LabelState
from pydantic import ValidationError

BUDGET = Budget(max_tokens=8)
TEXTS = ["where is my money", "the app crashes when I open it every single time", "", "thanks", "refund please"]
QUEUES = ["billing", "technical", "technical", "praise", "billing"]


class WordTokenizer:
    """A tokenizer of words with the call of a Hugging Face one: an id per word, 1 and 2 around them."""

    def __call__(
        self, texts: list[str], *, truncation: bool, max_length: int, **_: object
    ) -> dict[str, list[list[int]]]:
        assert truncation
        words = [[3 + sum(map(ord, word)) for word in text.split()] for text in texts]
        ids = [[1, *row[: max_length - 2], 2] for row in words]
        return {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}


def logits_of(encoded: pa.Table, head: Head) -> pa.Table:
    """An engine that answers by the length of the sequence."""
    values = [
        [float(len(ids) % (place + 2)) for place in range(head.outputs)] for ids in encoded["input_ids"].to_pylist()
    ]
    return pa.table({"logits": pa.array(values, pa.list_(pa.float32()))})


def table(texts: list[str | None], queues: list[str | None]) -> pa.Table:
    return pa.table({"message": pa.array(texts, pa.string()), "queue": pa.array(queues, pa.string())})


@pytest.fixture
def task() -> Classification:
    return Classification(ClassificationConfig(text="message", target="queue"))


@pytest.fixture
def fit() -> Callable[[Classification, pa.Table], LabelState]:
    return lambda task, rows: task.finish(task.observe(rows))


def test_classification_passes_its_kit() -> None:
    state = check_task(
        "classification",
        {"text": "message", "target": "queue"},
        table(TEXTS, QUEUES),
        tokenizer=WordTokenizer(),
        answer=logits_of,
        question={"message": "hello"},
        refused=[{}, {"message": 5}, {"message": "  "}, {"message": "hello", "queue": "billing"}],
    )
    assert state.labels == ("billing", "praise", "technical")


def test_several_text_columns_pass_the_kit_and_are_joined_line_by_line() -> None:
    rows = pa.table({"subject": ["a b", "c", None], "body text": ["d", "", "e"], "queue": ["x", "y", "x"]})
    config = {"text": ["subject", "body text"], "target": "queue"}
    check_task(
        "classification",
        config,
        rows,
        tokenizer=WordTokenizer(),
        answer=logits_of,
        question={"subject": "", "body text": "hello"},
        refused=[{"subject": "a"}, {"subject": "", "body text": " "}],
    )
    seen: list[str] = []

    class Listening(WordTokenizer):
        def __call__(self, texts: list[str], **options: object) -> dict[str, list[list[int]]]:
            seen.extend(texts)
            return super().__call__(texts, **options)  # type: ignore[arg-type]

    task = Classification(ClassificationConfig.model_validate(config))
    task.encode(rows, state=LabelState(labels=("x", "y")), tokenizer=Listening(), budget=BUDGET)
    assert seen == ["a b\nd", "c", "e"]


def test_a_class_with_one_example_is_allowed_and_listed(task: Classification, fit) -> None:
    assert fit(task, table(TEXTS, QUEUES)).rare == ("praise",)


@pytest.mark.parametrize(("queues", "what"), [(["billing"] * 5, "only one class, 'billing'"), ([None] * 5, "no class")])
def test_fewer_than_two_classes_are_refused_with_the_column(task: Classification, fit, queues, what: str) -> None:
    with pytest.raises(DataError, match=what) as refused:
        fit(task, table(TEXTS, queues))
    assert refused.value.problems[0].field == "queue"
    assert refused.value.problems[0].remedy


def test_declared_labels_keep_their_order_even_when_one_has_no_example(fit) -> None:
    task = Classification(
        ClassificationConfig(text="message", target="queue", labels=("technical", "sales", "praise", "billing"))
    )
    state = fit(task, table(TEXTS, QUEUES))
    assert state.labels == ("technical", "sales", "praise", "billing")
    assert state.rare == ("sales", "praise")


def test_a_label_that_was_not_declared_is_refused_with_the_nearest_one(fit) -> None:
    task = Classification(
        ClassificationConfig(text="message", target="queue", labels=("bilings", "technical", "praise"))
    )
    with pytest.raises(DataError, match=r"2 rows with 'billing'.*did you mean 'bilings'"):
        fit(task, table(TEXTS, QUEUES))


def test_numbers_and_booleans_are_labels_by_their_text(fit) -> None:
    task = Classification(ClassificationConfig(text="message", target="stars"))
    assert fit(task, pa.table({"message": ["a", "b"], "stars": [2, 10]})).labels == ("10", "2")
    assert fit(task, pa.table({"message": ["a", "b"], "stars": [True, False]})).labels == ("false", "true")


def test_a_target_of_lists_is_refused(task: Classification) -> None:
    with pytest.raises(DataError, match=r"queue.*list"):
        task.observe(pa.table({"message": ["a"], "queue": [["x", "y"]]}))


def test_an_unknown_or_empty_target_has_a_label_that_losses_leave_out_and_keeps_its_text(
    task: Classification, fit
) -> None:
    state = fit(task, table(TEXTS, QUEUES))
    encoded = task.encode(
        table(["a", "b", "c"], ["new", None, "praise"]), state=state, tokenizer=WordTokenizer(), budget=BUDGET
    )
    assert encoded["labels"].to_pylist() == [-100, -100, 1]
    assert encoded["target"].to_pylist() == ["new", None, "praise"]


def test_no_rows_are_encoded_and_decoded_to_no_rows(task: Classification, fit) -> None:
    state = fit(task, table(TEXTS, QUEUES))
    encoded = task.encode(table([], []), state=state, tokenizer=WordTokenizer(), budget=BUDGET)
    decoded = task.decode(pa.table({"logits": pa.array([], pa.list_(pa.float32()))}), encoded, state=state)
    assert decoded.num_rows == 0
    assert decoded.schema.field("scores").type == pa.list_(pa.float32())


def test_scores_are_the_softmax_of_the_logits(task: Classification) -> None:
    state = LabelState(labels=("a", "b", "c"))
    outputs = pa.table({"logits": pa.array([[0.0, np.log(3.0), 0.0], [1000.0, 0.0, 0.0]], pa.list_(pa.float32()))})
    decoded = task.decode(outputs, pa.table({"row": [0, 1]}), state=state)
    assert decoded["prediction"].to_pylist() == ["b", "a"]
    assert decoded["scores"].to_pylist()[0] == pytest.approx([0.2, 0.6, 0.2])
    assert decoded["score"].to_pylist() == pytest.approx([0.6, 1.0])


@pytest.mark.parametrize(
    ("logits", "what"), [([[0.0, 1.0]], "2 outputs per row"), ([[0.0, 1.0, float("nan")]], "row 0")]
)
def test_outputs_that_do_not_fit_the_labels_are_refused(task: Classification, logits, what: str) -> None:
    outputs = pa.table({"logits": pa.array(logits, pa.list_(pa.float32()))})
    with pytest.raises(DataError, match=what):
        task.decode(outputs, pa.table({"row": [0]}), state=LabelState(labels=("a", "b", "c")))


@pytest.mark.parametrize(
    "config",
    [
        {"text": "a", "target": "a"},
        {"text": [], "target": "a"},
        {"text": ["b", "b"], "target": "a"},
        {"text": "b", "target": "a", "labels": ["x"]},
        {"text": "b", "target": "a", "labels": ["x", "x"]},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ClassificationConfig.model_validate(config)


def test_a_real_fast_tokenizer_cuts_to_the_budget(task: Classification) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "the": 1, "app": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    encoded = task.encode(
        table(["the app crashes"], ["a"]),
        state=LabelState(labels=("a", "b")),
        tokenizer=tokenizer,
        budget=Budget(max_tokens=2),
    )
    assert encoded["input_ids"].to_pylist() == [[1, 2]]
    assert encoded.schema.field("input_ids").type == pa.list_(pa.int32())


SETS = [["billing"], ["technical", "urgent"], [], ["urgent", "billing", "urgent"], None]
SEVERAL = {"text": "message", "target": "queues", "multi_label": True}


def with_sets(sets: list[list[str] | None]) -> pa.Table:
    return pa.table({"message": TEXTS[: len(sets)], "queues": pa.array(sets, pa.list_(pa.string()))})


def test_several_labels_per_row_pass_the_kit() -> None:
    state = check_task(
        "classification",
        SEVERAL,
        with_sets(SETS),
        tokenizer=WordTokenizer(),
        answer=logits_of,
        question={"message": "hello"},
        refused=[{}, {"message": " "}],
    )
    assert state.labels == ("billing", "technical", "urgent")
    assert state.counts == {"billing": 2, "technical": 1, "urgent": 2}


def test_several_labels_are_zeros_and_ones_and_those_above_the_threshold_are_answered() -> None:
    task = Classification(ClassificationConfig.model_validate({**SEVERAL, "threshold": 0.6}))
    rows = with_sets(SETS)
    state = task.finish(task.observe(rows))
    encoded = task.encode(rows, state=state, tokenizer=WordTokenizer(), budget=BUDGET)  # type: ignore[arg-type]
    assert encoded["labels"].to_pylist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 0, 1], [0, 0, 0]]
    assert task.head(state).problem == "multi-label"
    logits = [[0.0, 1.0, -9.0], [500.0, -500.0, 0.41]]  # sigmoid(0.41) = 0.601
    outputs = pa.table({"logits": pa.array(logits, pa.list_(pa.float32()))})
    decoded = task.decode(outputs, encoded.slice(0, 2), state=state)
    assert decoded["prediction"].to_pylist() == [["technical"], ["billing", "urgent"]]
    answer = task.response(state).model_validate(decoded.to_pylist()[1]).model_dump()
    assert answer["labels"] == ["billing", "urgent"]
    assert answer["scores"]["billing"] == 1.0
    assert not task.served


def test_joined_labels_are_taken_apart_at_the_separator() -> None:
    task = Classification(ClassificationConfig.model_validate({**SEVERAL, "separator": "|"}))
    rows = pa.table({"message": TEXTS[:3], "queues": ["a|b c", " b c ||", None]})
    assert task.targets(rows).to_pylist() == [["a", "b c"], ["b c"], None]


def test_joined_labels_without_a_separator_are_refused_with_the_remedy() -> None:
    task = Classification(ClassificationConfig.model_validate(SEVERAL))
    with pytest.raises(DataError, match="holds string, several labels are a list") as refused:
        task.observe(pa.table({"message": ["x"], "queues": ["a,b"]}))
    assert "separator" in refused.value.problems[0].remedy


@pytest.mark.parametrize("option", [{"threshold": 0.3}, {"separator": ","}])
def test_options_of_several_labels_are_refused_where_there_is_one(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="multi_label: true"):
        ClassificationConfig.model_validate({"text": "message", "target": "queue", **option})


def test_a_label_of_a_test_row_that_training_never_saw_stays_in_its_target() -> None:
    task = Classification(ClassificationConfig.model_validate(SEVERAL))
    state = task.finish(task.observe(with_sets(SETS)))
    rows = with_sets([["billing", "new"]])
    encoded = task.encode(rows, state=state, tokenizer=WordTokenizer(), budget=BUDGET)  # type: ignore[arg-type]
    assert encoded["labels"].to_pylist() == [[1, 0, 0]]
    assert encoded["target"].to_pylist() == [["billing", "new"]]
