"""Rated answers as pairs: of two answers to one question, the one with the higher rating is the better.

Pairs, not the numbers themselves: how strict a rater is and how hard a question is fall out of the difference, and what
asks a reward model compares answers to one question. A question with one rated answer teaches nothing.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Any

from espalier_sdk import DataError
from espalier_sdk.columns import ENCODED_ROW

from espalier_learners.pairs import answer_column, encode_pairs, wrong_row

if TYPE_CHECKING:
    import pyarrow as pa
    from espalier_sdk import Budget
    from espalier_sdk.protocols import WritingTask
    from transformers import PreTrainedTokenizerBase as Tokenizer

_OTHER = "espalier_other"


def encode_rated(
    rows: pa.Table, *, rating: str, task: WritingTask, state: Any, tokenizer: Tokenizer, budget: Budget
) -> pa.Table:
    """Returns what `encode_pairs` does for every two answers to one question whose ratings differ.

    Raises DataError where a rating is no number or an answer is missing, and where no question has two answers to
    compare.
    """
    answer = answer_column(task)
    asked = task.questions(rows, tokenizer=tokenizer, budget=budget)
    assert asked is not None, "a task with answers asks something"
    numbers, answers = _numbers(rows, rating), rows.column(answer).to_pylist()
    for place, said in enumerate(answers):
        if not said:
            raise wrong_row(rows, place, "there is no answer", field=answer, remedy="drop the row with a transform")
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, ids in enumerate(asked.column("input_ids").to_pylist()):
        groups.setdefault(tuple(ids), []).append(place)
    pairs = [
        (one, two) if numbers[one] > numbers[two] else (two, one)
        for places in groups.values()
        for one, two in combinations(places, 2)
        if numbers[one] != numbers[two] and answers[one] != answers[two]
    ]
    if not pairs:
        raise DataError(
            "no question has two answers with different ratings, so there is nothing to compare",
            code="no_pairs",
            field=rating,
            remedy="keep the answers to one question together: name its column as `split.group`",
        )
    better, other = ([pair[side] for pair in pairs] for side in (0, 1))
    paired = rows.take(better).append_column(_OTHER, rows.column(answer).take(other))
    encoded = encode_pairs(paired, rejected=_OTHER, task=task, state=state, tokenizer=tokenizer, budget=budget)
    origin = [better[place] for place in encoded.column(ENCODED_ROW).to_pylist()]
    return encoded.set_column(encoded.column_names.index(ENCODED_ROW), ENCODED_ROW, [origin])


def _numbers(rows: pa.Table, name: str) -> list[float]:
    if name not in rows.column_names:
        raise DataError(f"there is no column {name!r}", field=name, accepted=", ".join(rows.column_names))
    found = []
    for place, value in enumerate(rows.column(name).to_pylist()):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            remedy = "write a number, or drop the row with a transform"
            raise wrong_row(rows, place, f"{value!r} is no rating", field=name, remedy=remedy)
        found.append(number)
    return found
