"""A stored model that answers requests: items are checked by the task, answered together, and shaped by the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from espalier_sdk.choice import Choice
from espalier_sdk.columns import ENCODED_ROW
from espalier_sdk.errors import DataError
from pydantic import BaseModel, ValidationError

from espalier_serving.calling import Reply
from espalier_serving.echo import Echo, EchoConfig
from espalier_serving.variant_config import ECHO

ROW_DROPPED = "row_dropped"  # the code with which a model refuses inputs that its transforms would drop


class Answers(Protocol):
    """What a variant's process holds."""

    async def warm_up(self) -> None:
        """Answers once, so that the first client does not wait for what is made lazily."""
        ...

    async def answer(self, requests: Sequence[Sequence[Any]]) -> list[Reply]:
        """Returns a reply for each request."""
        ...


def load(engine: dict[str, Any], *, model: str, store: str) -> Answers:
    """Opens what a variant serves: the echo engine, or a model of the store with the engine that is chosen."""
    choice = Choice.model_validate(engine)
    if choice.name == ECHO:
        return Echo(EchoConfig.model_validate(choice.config))
    from espalier_runtime.opening import open_model
    from espalier_runtime.plugins import Plugins
    from espalier_runtime.store import Store

    opened = Store.open(store)
    return ModelAnswers(open_model(opened, opened.resolve(model), Plugins(), choice))


class ModelAnswers:
    """Answers through an opened model (`espalier_runtime.opening.OpenedModel`)."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened
        self._request: type[BaseModel] = opened.task.request(opened.state)
        self._response: type[BaseModel] = opened.task.response(opened.state)
        self._columns = [field.alias or name for name, field in self._request.model_fields.items()]

    async def warm_up(self) -> None:
        """Answers a sample that the request model accepts."""
        sample = _sample(self._request)
        reply = (await self.answer([[sample]]))[0]
        if "invalid" in reply:
            raise DataError(f"the model does not answer a sample: {reply['invalid']}", given=sample)

    async def answer(self, requests: Sequence[Sequence[Any]]) -> list[Reply]:
        """Answers all valid requests in one batch."""
        checked = [self._check(items) for items in requests]
        rows = [row for one in checked if isinstance(one, list) for row in one]
        try:
            answers = iter(await self._predict(rows) if rows else [])
        except DataError as error:
            if error.problems[0].code != ROW_DROPPED or len(requests) > 1:
                raise  # of several requests each is answered alone afterwards: only one may be wrong
            return [{"invalid": error.problems[0].message, "item": None, "field": None}]
        return [{"predictions": [next(answers) for _ in one]} if isinstance(one, list) else one for one in checked]

    async def _predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        import pyarrow as pa

        found = (await self._opened.predict_async(pa.Table.from_pylist(rows))).to_pylist()
        answers = {row.get(ENCODED_ROW, place): row for place, row in enumerate(found)}
        missing = [place for place in range(len(rows)) if place not in answers]
        if missing:
            raise DataError(f"the model gives no answer for {len(missing)} of {len(rows)} inputs")
        return [self._response.model_validate(answers[place]).model_dump() for place in range(len(rows))]

    def _check(self, items: Sequence[Any]) -> list[dict[str, Any]] | Reply:
        rows = []
        for place, item in enumerate(items):
            if isinstance(item, str) and len(self._columns) > 1:
                return {"invalid": f"name the columns: {', '.join(self._columns)}", "item": place, "field": None}
            try:
                given = {self._columns[0]: item} if isinstance(item, str) else item
                rows.append(self._request.model_validate(given).model_dump(by_alias=True))
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(map(str, first["loc"])) or None
                message = "is missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
                return {"invalid": message, "item": place, "field": field}
        return rows


def _sample(request: type[BaseModel]) -> dict[str, Any]:
    """Returns a question: the request model's own example where it has one, else a word or 0 for each field."""
    schema = request.model_config.get("json_schema_extra")
    examples = schema.get("examples") if isinstance(schema, dict) else None
    if isinstance(examples, list) and examples and isinstance(examples[0], dict):
        return dict(examples[0])
    return {
        field.alias or name: "warm up" if field.annotation is str else 0
        for name, field in request.model_fields.items()
        if field.is_required()
    }
