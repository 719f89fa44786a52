"""`predict`: rows of a file answered by a model of the store, with the same task and engine as everywhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from espalier_runtime.plugins import Plugins
from espalier_runtime.store import Store
from espalier_sdk import Choice
from espalier_sdk.columns import ENCODED_ROW, ERROR, PREDICTION, RESERVED_PREFIX, SCORE, SCORES
from espalier_sdk.errors import DataError, SpecError

from espalier_pipeline.places import Places


def predict(
    model: str,
    file: Path | str,
    *,
    abstain_below: float | None = None,
    home: Path | None = None,
    store: str | None = None,
    rows_at_once: int = 1024,
) -> Iterator[dict[str, Any]]:
    """Yields each row of a file with its answer added, in order.

    Below the score `abstain_below` the prediction is None; the score stays. Raises DataError for a row that cannot be
    read, for a file without the columns that the model reads, and for a column that an answer has too: nothing is left
    out or written over silently. Raises SpecError where the model's answers have no score to abstain by.
    """
    import pyarrow as pa
    from espalier_runtime.card import CARD, read_card
    from espalier_runtime.opening import open_model

    opened_store = Store.open(Places.of(home=home, store=store).store)
    ref = opened_store.resolve(model)
    plugins = Plugins()
    source = plugins.load("espalier.sources", Choice(name="files", config={"paths": [str(Path(file).resolve())]}))
    card = read_card(opened_store.open_artifact(ref, only=CARD).folder)
    choice = Choice.model_validate(card["task"])
    task = plugins.load("espalier.tasks", choice)
    state = plugins.load_class("espalier.tasks", choice.name).State.model_validate(card["state"])
    _require_columns(_first_names(source, Path(file)), task, state, Path(file))
    response = task.response(state)
    opened = open_model(opened_store, ref, plugins)  # takes seconds: what is wrong with the file is told before
    for part in source.parts():
        for batch in source.read(part):
            table = pa.Table.from_batches([batch])
            _require_readable(table, Path(file))
            asked = table.select([name for name in table.column_names if not name.startswith(RESERVED_PREFIX)])
            for start in range(0, asked.num_rows, rows_at_once):
                rows = asked.slice(start, rows_at_once)
                answers = opened.predict(rows)
                own = [one for one in answers.column_names if one == ENCODED_ROW or one.startswith(RESERVED_PREFIX)]
                answers = answers.drop_columns(own)
                _require_apart(rows.column_names, answers.column_names, Path(file))
                for row, answer in zip(rows.to_pylist(), answers.to_pylist(), strict=True):
                    if SCORES in answer:  # by label, as the endpoint tells them
                        answer |= response.model_validate(answer).model_dump(include={SCORES})
                    if abstain_below is not None and _score(answer, model) < abstain_below:
                        answer[PREDICTION] = None
                    yield {**row, **answer}


def _first_names(source: Any, file: Path) -> list[str]:
    """Returns the columns of the first rows, which can all be read."""
    import pyarrow as pa

    first = next((batch for part in source.parts() for batch in source.read(part)), None)
    if first is None:
        return []
    _require_readable(pa.Table.from_batches([first]), file)
    return [name for name in first.schema.names if not name.startswith(RESERVED_PREFIX)]


def _require_columns(names: Sequence[str], task: Any, state: Any, file: Path) -> None:
    """Raises DataError for rows that neither ask what the model answers, nor are whole as those it was trained on."""
    fields = task.request(state).model_fields
    asked = [one.alias or name for name, one in fields.items() if one.is_required()]
    if set(asked) <= set(names) or set(task.columns().required) <= set(names):
        return
    lacking = [name for name in asked if name not in names]
    raise DataError(
        f"the model reads {_listed(asked)}; the file has {_listed(names)}",
        code="missing_column",
        file=str(file),
        given=list(names),
        remedy=f"rename the column that holds what the model reads as {lacking[0]!r}",
    )


def _listed(names: Sequence[str]) -> str:
    return ("column " if len(names) == 1 else "columns ") + ", ".join(map(repr, names)) if names else "no columns"


def _score(answer: Mapping[str, Any], model: str) -> float:
    if SCORE not in answer:
        raise SpecError(
            f"the answers of {model} have no score to abstain by", field="--abstain-below", remedy="leave it out"
        )
    return float(answer[SCORE])


def _require_readable(table: Any, file: Path) -> None:
    for line, error in zip(table["espalier_line"].to_pylist(), table[ERROR].to_pylist(), strict=True):
        if error is not None:
            raise DataError(
                f"row cannot be read: {error}", file=str(file), line=line, remedy="correct or remove the row"
            )


def _require_apart(own: Sequence[str], answered: Sequence[str], file: Path) -> None:
    if both := [name for name in answered if name in own]:
        raise DataError(
            f"the answer would be written over column {', '.join(map(repr, both))} of the file",
            code="columns",
            file=str(file),
            field=both[0],
            remedy="rename it",
        )
