"""Preference pairs: two answers to one question, of which a person liked one better.

The task writes down both, so that questions, templates and limits are those of its own answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from espalier_sdk import Budget, Columns, DataError, SpecError
from espalier_sdk.columns import ENCODED_ROW, LABELS, LINE, ORIGIN

from espalier_learners.padding import IGNORED_LABEL

if TYPE_CHECKING:
    import pyarrow as pa
    from espalier_sdk.protocols import Task
    from transformers import PreTrainedTokenizerBase as Tokenizer

CHOSEN_TOKENS = "chosen_tokens"  # int64: how many of a pair's tokens belong to the better answer, which comes first
_ANSWERS = ("answer", "messages")  # how a task calls the column that holds what it would write, surest first


def answer_column(task: Task) -> str:
    """Returns the column of the task's answers; SpecError where the task has none."""
    required = task.columns().required
    for kind in _ANSWERS:
        for name, use in required.items():
            if use == kind:
                return name
    raise SpecError(
        "the task holds no answers that could be compared",
        code="no_answers",
        field="learner",
        accepted="a task with questions and answers, or chats",
        remedy="name `prompt` and `completion`, or `messages`, in the task's config",
    )


def pair_columns(task: Task, rejected: str) -> Columns:
    """Returns the task's columns and that of the other answer."""
    known = task.columns()
    kind = known.required[answer_column(task)]
    return Columns(required={**known.required, rejected: kind}, optional=known.optional)


def encode_pairs(
    rows: pa.Table, *, rejected: str, task: Task, state: Any, tokenizer: Tokenizer, budget: Budget
) -> pa.Table:
    """Returns one row per pair: the tokens and labels of the better answer, and behind them those of the other.

    Each side, question and answer, has at most the budget. Raises DataError where an answer is missing, where both
    are the same, and where what is the same is all that the budget left of them.
    """
    import pyarrow as pa

    answer = answer_column(task)
    _require_pairs(rows, answer, rejected)
    swapped = rows.set_column(rows.column_names.index(answer), answer, rows.column(rejected))
    told = {"state": state, "tokenizer": tokenizer, "budget": budget}
    better, worse = (task.encode(side, **told) for side in (rows, swapped))
    joined: dict[str, list[list[int]]] = {}
    for name in ("input_ids", LABELS):
        sides = zip(better.column(name).to_pylist(), worse.column(name).to_pylist(), strict=True)
        joined[name] = [left + right for left, right in sides]
    lengths = [len(one) for one in better.column("input_ids").to_pylist()]
    for place, (ids, cut) in enumerate(zip(joined["input_ids"], lengths, strict=True)):
        if ids[:cut] == ids[cut:]:
            raise wrong_row(
                rows,
                place,
                f"both answers are the same up to max_tokens {budget.max_tokens}",
                field=rejected,
                remedy="raise training.max_tokens, or drop the row",
            )
    return pa.table(
        {
            ENCODED_ROW: better.column(ENCODED_ROW),
            "input_ids": pa.array(joined["input_ids"], pa.list_(pa.int32())),
            LABELS: pa.array(joined[LABELS], pa.list_(pa.int64())),
            CHOSEN_TOKENS: pa.array(lengths, pa.int64()),
        }
    )


class PadPairs:
    """Makes a batch of pairs: all better answers first, then all others, padded to the longest of both."""

    def __init__(
        self, tokenizer: Tokenizer, names: Sequence[str] = ("input_ids", "attention_mask", "completion_mask")
    ) -> None:
        self._padding = tokenizer.pad_token_id
        self._names = names

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Returns what `names` says, each `(2 x pairs, tokens)`."""
        import numpy as np
        import torch

        cuts = [int(one[CHOSEN_TOKENS]) for one in examples]
        parts = [slice(None, cut) for cut in cuts] + [slice(cut, None) for cut in cuts]
        ids, labels = (
            [np.asarray(one[name])[part] for one, part in zip([*examples, *examples], parts, strict=True)]
            for name in ("input_ids", LABELS)
        )
        width = max(len(one) for one in ids)
        padded = {
            "input_ids": [widened(one, width, self._padding) for one in ids],
            "attention_mask": [widened(np.ones_like(one), width, 0) for one in ids],
            "completion_mask": [widened(one != IGNORED_LABEL, width, 0) for one in labels],
        }
        return {name: torch.from_numpy(np.stack(padded[name]).astype(np.int64)) for name in self._names}


def widened(values: Any, width: int, fill: int) -> Any:
    """Returns values with padding on the right."""
    import numpy as np

    return np.pad(values, (0, width - len(values)), constant_values=fill)


def _require_pairs(rows: pa.Table, answer: str, rejected: str) -> None:
    for name in (answer, rejected):
        if name not in rows.column_names:
            raise DataError(f"there is no column {name!r}", field=name, accepted=", ".join(rows.column_names))
    sides = zip(rows.column(answer).to_pylist(), rows.column(rejected).to_pylist(), strict=True)
    for place, (better, worse) in enumerate(sides):
        for name, value in ((answer, better), (rejected, worse)):
            if not value:
                raise wrong_row(rows, place, "there is no answer", field=name, remedy="drop the row with a transform")
        if better == worse:
            remedy = "drop the row: where both answers are the same, nothing says which is better"
            raise wrong_row(rows, place, f"is the same as {answer!r}", field=rejected, remedy=remedy)


def wrong_row(rows: pa.Table, place: int, message: str, *, field: str, remedy: str) -> DataError:
    """Returns the error for one row, with the file and line that it came from where the table still has them."""
    where: dict[str, Any] = {}
    if ORIGIN in rows.column_names and LINE in rows.column_names:
        where = {"file": rows.column(ORIGIN)[place].as_py(), "line": rows.column(LINE)[place].as_py()}
    at = "" if where else f"row {place}: "
    return DataError(f"{at}{message}", code="pair", field=field, remedy=remedy, **where)
