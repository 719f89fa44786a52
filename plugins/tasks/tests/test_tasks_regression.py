"""The regression task: kit, scale, side columns, and targets that are refused."""

from __future__ import annotations

import statistics
from typing import Any

import pyarrow as pa
import pytest
from espalier_sdk.errors import DataError
from espalier_sdk.model import Budget, Head
from espalier_sdk.testing import check_task
from espalier_tasks import Regression, RegressionConfig
from espalier_tasks.scale import ScaleState
from pydantic import ValidationError

BUDGET = Budget(max_tokens=8)
HOURS = [1.5, 0.0, -4.0, 120.25, 0.1]
CONFIG: dict[str, Any] = {"text": "message", "target": "hours"}
SIDE: dict[str, Any] = CONFIG | {"numeric": ["files"], "categorical": ["priority"]}


class WordTokenizer:
    """A tokenizer of words with the call of a Hugging Face one: an id per word, 1 and 2 around them."""

    def __call__(
        self, texts: list[str], *, truncation: bool, max_length: int, **_: object
    ) -> dict[str, list[list[int]]]:
        assert truncation
        ids = [[1, *[3 + len(word) for word in text.split()][: max_length - 2], 2] for text in texts]
        return {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}


def table(hours: Any, *, vectors: Any = None) -> pa.Table:
    columns: dict[str, Any] = {"message": [f"text {place}" for place in range(len(hours))], "hours": hours}
    if vectors is not None:
        columns |= {"files": [1] * len(hours), "priority": ["low"] * len(hours)}
        columns["side"] = pa.array(vectors, pa.list_(pa.float32()))
    return pa.table(columns)


def labels_back(encoded: pa.Table, head: Head) -> pa.Table:
    """An engine that is always right."""
    assert head.outputs == 1
    return pa.table({"logits": pa.array([[label] for label in encoded["labels"].to_pylist()], pa.list_(pa.float32()))})


def fitted(rows: pa.Table, **config: Any) -> tuple[Regression, ScaleState]:
    task = Regression(RegressionConfig.model_validate(config or CONFIG))
    return task, task.finish(task.observe(rows))


def test_regression_passes_its_kit() -> None:
    state = check_task(
        "regression",
        CONFIG,
        table(HOURS),
        tokenizer=WordTokenizer(),
        answer=labels_back,
        question={"message": "hello"},
        refused=[{}, {"message": " "}, {"message": 5}, {"message": "hello", "hours": 2.0}],
    )
    assert state.mean == pytest.approx(statistics.fmean(HOURS))
    assert state.deviation == pytest.approx(statistics.pstdev(HOURS))


def test_regression_with_side_columns_passes_its_kit() -> None:
    state = check_task(
        "regression",
        SIDE,
        table(HOURS, vectors=[[place, 1.0] for place in range(5)]),
        tokenizer=WordTokenizer(),
        answer=labels_back,
        question={"message": "hello", "files": 3.0, "priority": None},
        refused=[{"message": "hello", "files": "3"}, {"message": "hello", "files": float("inf")},
                 {"message": "hello", "files": True}, {"message": "hello", "priority": 2}],
    )  # fmt: skip
    assert state.side_width == 2


def test_answers_come_back_in_the_targets_own_unit() -> None:
    task, state = fitted(table(HOURS))
    encoded = task.encode(table(HOURS), state=state, tokenizer=WordTokenizer(), budget=BUDGET)
    assert statistics.pstdev(encoded["labels"].to_pylist()) == pytest.approx(1)
    decoded = task.decode(labels_back(encoded, task.head(state)), encoded, state=state)
    assert decoded["prediction"].to_pylist() == pytest.approx(HOURS, abs=1e-4)
    assert decoded["target"].to_pylist() == HOURS
    assert task.response(state).model_validate(decoded.to_pylist()[3]).model_dump() == {"value": pytest.approx(120.25)}


def test_side_columns_reach_the_model_as_they_are() -> None:
    rows = table([1.0, 2.0], vectors=[[1, 2, 3], [4, 5, 6]])
    task, state = fitted(rows, **SIDE)
    assert task.head(state) == Head("sequence-classification", outputs=1, side_width=3, problem="regression")
    encoded = task.encode(rows, state=state, tokenizer=WordTokenizer(), budget=BUDGET)
    assert encoded["side"].to_pylist() == [[1, 2, 3], [4, 5, 6]]
    assert encoded.schema.field("side").type == pa.list_(pa.float32())


def test_numbers_as_text_are_numbers() -> None:
    _, state = fitted(table([" 1.5", "2e0", "-3", "4"]))
    assert state.mean == pytest.approx(1.125)


def test_a_mean_does_not_depend_on_the_order_of_adding() -> None:
    values = [1e16, 1.0, -1e16, 1e-9, 3.0]
    assert fitted(table(values))[1] == fitted(table(values[::-1]))[1]


@pytest.mark.parametrize(
    ("hours", "what"),
    [
        (["1", "two", "3", "four", ""], "'hours'.*2 no number"),
        ([1.0, float("nan"), 2.0], "'hours'.*1 NaN"),
        (["1", "nan", "2"], "'hours'.*1 NaN"),
        ([1.0, float("inf"), -float("inf")], "'hours'.*2 infinite"),
        (["1", "1_0"], "1 no number"),
        ([3.5, 3.5, 3.5], "'hours' is 3.5 in all 3 rows"),
        (["", "1"], "has 1 target in"),
        ([None, None], "has no targets in"),
        ([True, False], "bool is no number"),
    ],
)
def test_targets_that_cannot_be_learned_are_refused_with_column_and_count(hours: Any, what: str) -> None:
    with pytest.raises(DataError, match=what):
        fitted(table(hours))


def test_the_count_of_bad_targets_is_that_of_all_parts_and_some_are_shown() -> None:
    task = Regression(RegressionConfig.model_validate(CONFIG))
    parts = [task.observe(table([value, "1"])) for value in ("x", "inf", "y")]
    with pytest.raises(DataError, match="1 infinite, 2 no number") as refused:
        task.finish(task.combine(task.combine(parts[0], parts[1]), parts[2]))
    assert refused.value.problems[0].given == ["inf", "x", "y"]


@pytest.mark.parametrize("missing", [["", None], [None, float("nan")]])
def test_a_row_without_a_target_keeps_its_place_and_has_none(missing: Any) -> None:
    task, state = fitted(table(HOURS))
    encoded = task.encode(table(missing), state=state, tokenizer=WordTokenizer(), budget=BUDGET)
    assert encoded["target"].to_pylist() == [None, None]
    assert all(label != label for label in encoded["labels"].to_pylist())


def test_a_target_that_is_no_number_is_refused_where_it_would_be_measured() -> None:
    task, state = fitted(table(HOURS))
    with pytest.raises(DataError, match=r"'hours'.*1 no number"):
        task.encode(table(["1", "soon"]), state=state, tokenizer=WordTokenizer(), budget=BUDGET)


def test_side_columns_without_a_transform_are_refused_with_the_remedy() -> None:
    with pytest.raises(DataError, match=r"no column 'side'.*add the transform `encode` with files, priority"):
        fitted(table(HOURS), **SIDE)


def test_vectors_of_another_width_than_the_models_are_refused() -> None:
    task, state = fitted(table([1.0, 2.0], vectors=[[1, 2], [3, 4]]), **SIDE)
    other = table([1.0], vectors=[[1, 2, 3]])
    with pytest.raises(DataError, match="3 numbers, the model reads 2"):
        task.encode(other, state=state, tokenizer=WordTokenizer(), budget=BUDGET)


@pytest.mark.parametrize(
    ("logits", "what"), [([[0.0, 1.0]], "2 outputs per row"), ([[0.0], [float("nan")]], "no number for row 1")]
)
def test_outputs_that_are_no_number_are_refused(logits: Any, what: str) -> None:
    task, state = fitted(table(HOURS))
    outputs = pa.table({"logits": pa.array(logits, pa.list_(pa.float32()))})
    with pytest.raises(DataError, match=what):
        task.decode(outputs, pa.table({"row": range(len(logits))}), state=state)


def test_no_rows_are_encoded_and_decoded_to_no_rows() -> None:
    task, state = fitted(table(HOURS))
    empty = table(pa.array([], pa.float64()))
    encoded = task.encode(empty, state=state, tokenizer=WordTokenizer(), budget=BUDGET)
    decoded = task.decode(pa.table({"logits": pa.array([], pa.list_(pa.float32()))}), encoded, state=state)
    assert decoded.num_rows == 0
    assert decoded.schema.field("prediction").type == pa.float64()


@pytest.mark.parametrize(
    "config",
    [
        {"text": "a", "target": "a"},
        {"text": [], "target": "a"},
        {"text": "a", "target": "b", "numeric": ["b"]},
        {"text": "a", "target": "b", "numeric": ["c"], "categorical": ["c"]},
        {"text": "a", "target": "b", "numeric": ["side"]},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RegressionConfig.model_validate(config)
