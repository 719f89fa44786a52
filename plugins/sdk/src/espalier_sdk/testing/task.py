"""The kit for tasks: fitting is a monoid, state survives JSON, rows keep their place from encode to decode."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, ValidationError

from espalier_sdk.columns import ENCODED_ROW, ENDS, LABELS, QUESTION, STARTS, TARGET
from espalier_sdk.model import Budget, Columns, Head
from espalier_sdk.testing.fitting import check_monoid
from espalier_sdk.testing.plugin import check_plugin

if TYPE_CHECKING:
    import pyarrow as pa


def check_task(
    name: str,
    config: Mapping[str, Any],
    rows: pa.Table,
    *,
    tokenizer: Any,
    answer: Callable[[pa.Table, Head], pa.Table],
    question: Mapping[str, Any],
    refused: Sequence[Mapping[str, Any]],
    budget: Budget | None = None,
) -> Any:
    """Checks a task on rows of a train split (three at least) and returns its state.

    `answer` stands for an engine: it makes outputs for encoded rows. `question` is a request that must be
    accepted, each of `refused` one that must not. The required columns are in the rows; fitting does not depend
    on how the rows are cut; the state survives JSON; `encode` keeps within the budget, says which row each
    encoded row came from, has labels with a target column and none without, and gives one row what it gives it
    among others; `decode` answers every row in order; the response model accepts what `decode` makes. A task that
    writes asks without the answer, leaves room for one, and yields texts for a tokenizer.
    """
    plugin = check_plugin("espalier.tasks", name)
    task, budget = plugin(plugin.Config.model_validate(dict(config))), budget or Budget(max_tokens=16)
    columns = task.columns()
    assert isinstance(columns, Columns) and columns.required, f"{name}: columns() must name what is required"
    absent = [column for column in columns.required if column not in rows.column_names]
    assert not absent, f"{name}: the kit's rows lack {', '.join(absent)}"
    state = check_monoid(name, task, rows)
    assert isinstance(task.head(state), Head), f"{name}: head() must be a Head"
    encoded = task.encode(rows, state=state, tokenizer=tokenizer, budget=budget)
    labels = (STARTS, ENDS) if task.head_kind == "question-answering" else (LABELS,)
    _check_encoded(name, encoded, rows, budget, labels)
    _check_targets(name, task, rows, encoded)
    _check_alone(name, task, rows, encoded, state=state, tokenizer=tokenizer, budget=budget)
    _check_without_target(name, task, rows, question, state=state, tokenizer=tokenizer, budget=budget)
    decoded = task.decode(answer(encoded, task.head(state)), encoded, state=state)
    _check_answers(name, task, decoded, rows, state)
    _check_request(name, task.request(state), question, refused)
    if task.head_kind == "causal-lm":
        _check_writing(name, task, rows, question, state=state, tokenizer=tokenizer, budget=budget)
    return state


def _check_writing(
    name: str, task: Any, rows: pa.Table, question: Mapping[str, Any], *, state: Any, tokenizer: Any, budget: Budget
) -> None:
    """A task that writes: texts for a tokenizer, and questions that leave room for an answer and do not hold it."""
    import pyarrow as pa

    assert any(text.strip() for text in task.texts(rows)), f"{name}: texts() must yield what a tokenizer is made from"
    new = task.settings(tokenizer=tokenizer, budget=budget)["max_new_tokens"]
    row = pa.Table.from_pylist([dict(question)])
    asked = task.questions(row, tokenizer=tokenizer, budget=budget)
    assert asked is not None and asked.num_rows == 1, f"{name}: questions() must have a row for a question"
    alone = task.encode(row, state=state, tokenizer=tokenizer, budget=budget).column("input_ids").to_pylist()
    assert asked.column("input_ids").to_pylist() == alone, f"{name}: questions() and encode() ask in different words"
    given = task.questions(rows, tokenizer=tokenizer, budget=budget)
    for table in (asked, given):
        if table is not None:
            assert LABELS not in table.column_names and QUESTION in table.column_names, f"{name}: asks with answers"
            longest = max(map(len, table.column("input_ids").to_pylist()))
            assert 0 < longest <= budget.max_tokens - new, f"{name}: {longest} tokens asked leave no room for {new}"
    if given is not None:
        encoded = task.encode(rows, state=state, tokenizer=tokenizer, budget=budget)
        assert encoded.column(ENCODED_ROW).to_pylist() == list(range(given.num_rows)), f"{name}: one row per question"


def _check_encoded(name: str, encoded: pa.Table, rows: pa.Table, budget: Budget, labels: tuple[str, ...]) -> None:
    for column in (ENCODED_ROW, "input_ids", "attention_mask", *labels, TARGET):
        assert column in encoded.column_names, f"{name}: encode() of rows with a target must have {column!r}"
    places = encoded.column(ENCODED_ROW).to_pylist()
    assert places == sorted(places), f"{name}: encoded rows must keep the rows' order"
    assert set(places) == set(range(rows.num_rows)), f"{name}: encode() must have an encoded row for each row"
    for ids, mask in zip(
        encoded.column("input_ids").to_pylist(), encoded.column("attention_mask").to_pylist(), strict=True
    ):
        assert 0 < len(ids) <= budget.max_tokens, f"{name}: {len(ids)} tokens, the budget is {budget.max_tokens}"
        assert len(mask) == len(ids), f"{name}: attention_mask and input_ids differ in length"


def _check_targets(name: str, task: Any, rows: pa.Table, encoded: pa.Table) -> None:
    """Baselines learn from `targets`, and are measured beside models."""
    if not hasattr(task, "targets"):
        return
    wanted = task.targets(rows).to_pylist()
    found = zip(encoded.column(ENCODED_ROW).to_pylist(), encoded.column(TARGET).to_pylist(), strict=True)
    assert all(target == wanted[place] for place, target in found), f"{name}: targets() and encode() differ"


def _check_alone(name: str, task: Any, rows: pa.Table, encoded: pa.Table, **options: Any) -> None:
    """Serving encodes one row at a time: it must be what the row is among others."""
    for place in range(rows.num_rows):
        alone = task.encode(rows.slice(place, 1), **options)
        among = [row for row in encoded.to_pylist() if row[ENCODED_ROW] == place]
        assert [row | {ENCODED_ROW: place} for row in alone.to_pylist()] == among, (
            f"{name}: row {place} is encoded in another way when it is alone"
        )


def _check_without_target(name: str, task: Any, rows: pa.Table, question: Mapping[str, Any], **options: Any) -> None:
    import pyarrow as pa

    made = [
        column for column, use in task.columns().optional.items() if use == "vector"
    ]  # by transforms, of a question
    row = {**question, **{column: rows.column(column)[0].as_py() for column in made}}
    asked = task.encode(pa.Table.from_pylist([row]), **options)
    assert not {LABELS, STARTS, ENDS, TARGET} & set(asked.column_names), (
        f"{name}: without a target there must be no labels"
    )


def _check_answers(name: str, task: Any, decoded: pa.Table, rows: pa.Table, state: Any) -> None:
    assert decoded.num_rows == rows.num_rows, f"{name}: {decoded.num_rows} answers for {rows.num_rows} rows"
    assert decoded.column(ENCODED_ROW).to_pylist() == list(range(rows.num_rows)), f"{name}: answers out of order"
    assert TARGET in decoded.column_names, f"{name}: decode() must keep the target for metrics"
    response = task.response(state)
    assert issubclass(response, BaseModel), f"{name}: response() must be a pydantic model"
    for row in decoded.to_pylist():
        json.dumps(response.model_validate(row).model_dump(mode="json"), allow_nan=False)


def _check_request(
    name: str, request: type[BaseModel], question: Mapping[str, Any], refused: Sequence[Mapping[str, Any]]
) -> None:
    dumped = request.model_validate(dict(question)).model_dump()
    assert dumped == dict(question), f"{name}: the request model turns {dict(question)} into {dumped}"
    assert refused, f"{name}: the kit needs questions that must be refused"
    for wrong in refused:
        with pytest.raises(ValidationError):
            request.model_validate(dict(wrong))
