"""What a variant's process holds: a model behind its task's request and response, and the echo engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pyarrow as pa
import pytest
from espalier_sdk.columns import ENCODED_ROW
from espalier_sdk.errors import DataError
from espalier_serving.echo import Echo, EchoConfig
from espalier_serving.model_answers import ModelAnswers, load
from pydantic import BaseModel, ConfigDict, Field, model_validator


class Question(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str = Field(alias="free text", min_length=1)


class TwoColumns(BaseModel):
    model_config = ConfigDict(extra="forbid")
    subject: str
    body: str


class Reply(BaseModel):
    label: str
    score: float
    scores: dict[str, float]

    @model_validator(mode="before")
    @classmethod
    def _row(cls, value: dict[str, Any]) -> dict[str, Any]:
        return {"label": value["prediction"], "score": value["score"], "scores": {value["prediction"]: value["score"]}}


class UpperTask:
    def __init__(self, request: type[BaseModel] = Question) -> None:
        self._request = request

    def request(self, state: Any) -> type[BaseModel]:
        return self._request

    def response(self, state: Any) -> type[BaseModel]:
        return Reply


class OpenedFake:
    """Answers a text in capitals; answers in reversed order, as a task that joins windows may."""

    def __init__(self, request: type[BaseModel] = Question) -> None:
        self.task = UpperTask(request)
        self.state = None
        self.tables: list[pa.Table] = []

    async def predict_async(self, rows: pa.Table) -> pa.Table:
        self.tables.append(rows)
        texts = rows.column(0).to_pylist()
        if "drop me" in texts:
            raise DataError("clean drops 1 row", code="row_dropped")
        order = list(reversed(range(len(texts))))
        return pa.table(
            {ENCODED_ROW: order, "prediction": [texts[place].upper() for place in order], "score": [0.5] * len(texts)}
        )


def answered(opened: OpenedFake, *requests: list[Any]) -> list[Any]:
    return asyncio.run(ModelAnswers(opened).answer(requests))


def labels(reply: Any) -> list[str]:
    return [one["label"] for one in reply["predictions"]]


def test_requests_share_a_batch_and_each_gets_its_own_answers_in_order() -> None:
    opened = OpenedFake()
    first, second = answered(opened, ["a", {"free text": "b"}], ["c"])
    assert (labels(first), labels(second)) == (["A", "B"], ["C"])
    assert len(opened.tables) == 1
    assert opened.tables[0].column_names == ["free text"]


def test_an_invalid_request_says_where_and_does_not_hurt_the_others() -> None:
    wrong, right = answered(OpenedFake(), ["a", {"text": "b"}], ["c"])
    assert (wrong["item"], wrong["field"]) == (1, "free text")
    assert labels(right) == ["C"]


def test_an_empty_text_is_refused_by_the_tasks_own_rule() -> None:
    assert "at least 1 character" in answered(OpenedFake(), [""])[0]["invalid"]


def test_a_bare_text_for_several_columns_is_refused_with_their_names() -> None:
    assert answered(OpenedFake(TwoColumns), ["a"])[0]["invalid"] == "name the columns: subject, body"


def test_a_row_that_a_transform_would_drop_is_the_clients_error_when_it_is_alone() -> None:
    assert answered(OpenedFake(), ["drop me"])[0]["invalid"] == "clean drops 1 row"
    with pytest.raises(DataError):
        answered(OpenedFake(), ["drop me"], ["fine"])


def test_warming_up_answers_a_sample_of_the_request_model() -> None:
    opened = OpenedFake(TwoColumns)
    asyncio.run(ModelAnswers(opened).warm_up())
    assert opened.tables[0].to_pylist() == [{"subject": "warm up", "body": "warm up"}]


def test_the_echo_engine_needs_no_store_and_answers_its_label() -> None:
    answers = load({"name": "echo", "config": {"label": "x"}}, model="model/a@" + "a" * 64, store="/nowhere")
    (reply,) = asyncio.run(answers.answer([["one", "two"]]))
    assert labels(reply) == ["x", "x"]


def test_the_echo_engine_fails_on_demand() -> None:
    echo = Echo(EchoConfig(fails_on="boom"))
    with pytest.raises(RuntimeError):
        asyncio.run(echo.answer([["boom"]]))
    with pytest.raises(RuntimeError, match="no memory"):
        Echo(EchoConfig(refuses_to_load="no memory"))
