"""The scale of a regression's target: how it is summed on the train split, and what is refused about it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from espalier_sdk.choice import State
from espalier_sdk.errors import DataError
from pydantic import Field

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_SHOWN = 5


class ScaleState(State):
    """Mean and scale of the target on the train split, and the width of the side columns' vector."""

    mean: float = Field(default=0.0, description="Mean of the target.")
    deviation: float = Field(default=1.0, gt=0, description="Its standard deviation: the model answers in this unit.")
    side_width: int = Field(
        default=0, ge=0, description="Numbers in the vector of side columns; 0 where there is none."
    )
    rows: int = Field(default=0, ge=0, description="Rows with a target.")
    total: str = Field(default="0", description="Their exact sum as a fraction; 0 once finished.")
    squares: str = Field(default="0", description="The exact sum of their squares; 0 once finished.")
    refused: dict[str, int] = Field(default_factory=dict, description="Rows by why their target is refused.")
    examples: tuple[str, ...] = Field(default=(), description="Some of those targets, the first by their text.")


def observe_scale(column: pa.ChunkedArray, *, side_width: int) -> ScaleState:
    """Returns the sums of a column; what is blank or null is left out, what is no finite number is counted."""
    import numpy as np

    values, unreadable = read_numbers(column)
    # NaN of a column of text is text that says so: `read_numbers` tells it from what is blank.
    finite = values[np.isfinite(values)].tolist()
    refused = {
        "no number": len(unreadable),
        "NaN": int(np.isnan(values).sum()),
        "infinite": int(np.isinf(values).sum()),
    }
    odd = {*unreadable, *map(str, values[~np.isfinite(values)].tolist())}
    return ScaleState(
        side_width=side_width,
        rows=len(finite),
        total=str(sum(map(Fraction, finite), Fraction())),
        squares=str(sum((Fraction(value) ** 2 for value in finite), Fraction())),
        refused={why: count for why, count in refused.items() if count},
        examples=tuple(sorted(odd)[:_SHOWN]),
    )


def combine_scales(left: ScaleState, right: ScaleState) -> ScaleState:
    """Returns the sums of both; DataError where their vectors differ in width."""
    if left.side_width and right.side_width and left.side_width != right.side_width:
        raise DataError(
            f"vectors of side columns have {left.side_width} numbers in some rows and {right.side_width} in others",
            remedy="make them with one transform for all rows",
        )
    reasons = sorted({*left.refused, *right.refused})
    return ScaleState(
        side_width=left.side_width or right.side_width,
        rows=left.rows + right.rows,
        total=str(Fraction(left.total) + Fraction(right.total)),
        squares=str(Fraction(left.squares) + Fraction(right.squares)),
        refused={why: left.refused.get(why, 0) + right.refused.get(why, 0) for why in reasons},
        examples=tuple(sorted({*left.examples, *right.examples})[:_SHOWN]),
    )


def finish_scale(seen: ScaleState, *, column: str) -> ScaleState:
    """Returns mean and scale; DataError for targets that are no finite numbers, and for a target that is constant."""
    if seen.refused:
        raise bad_targets(column, seen.refused, seen.examples, of="the train split")
    if seen.rows < 2:
        raise DataError(
            f"column {column!r} has {seen.rows or 'no'} target{'s' if seen.rows != 1 else ''} in the train split; "
            "a regression needs at least two",
            code="few_targets",
            field=column,
            remedy="check that `target` names the right column, and that the transforms leave rows",
        )
    mean = Fraction(seen.total) / seen.rows
    variance = Fraction(seen.squares) / seen.rows - mean**2  # exact: nothing cancels
    if not variance:
        raise DataError(
            f"column {column!r} is {float(mean):g} in all {seen.rows} rows of the train split: nothing can be learned",
            code="constant_target",
            field=column,
            given=float(mean),
            remedy="check that `target` names the right column",
        )
    return ScaleState(mean=float(mean), deviation=math.sqrt(variance), side_width=seen.side_width, rows=seen.rows)


def bad_targets(column: str, refused: dict[str, int], examples: tuple[str, ...], *, of: str) -> DataError:
    """Returns the error for targets that are no finite numbers."""
    counts = ", ".join(f"{count} {why}" for why, count in sorted(refused.items()))
    return DataError(
        f"column {column!r} has targets in {of} that are no finite number: {counts}",
        code="bad_target",
        field=column,
        given=list(examples),
        accepted="finite numbers, with a point for decimals; an empty target leaves the row out",
        remedy="correct them, or drop these rows with the transform `filter`",
    )


def read_numbers(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Returns the values that are numbers as float64, NaN and infinity included, and the texts that are none.

    Null and blank text are in neither.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    there = column.drop_null()
    if not (pa.types.is_string(there.type) or pa.types.is_large_string(there.type)):
        return _as_floats(there), []
    texts = [text for text in pc.utf8_trim_whitespace(there).to_pylist() if text]
    values = [(text, _number(text)) for text in texts]
    numbers = [value for _, value in values if value is not None]
    return np.array(numbers, dtype=np.float64), [text for text, value in values if value is None]


def targets_of(column: pa.ChunkedArray, *, name: str) -> np.ndarray:
    """Returns a column as float64, NaN where a row has no target; DataError where one is no finite number."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    found = np.full(len(column), np.nan)
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    # NaN in a column of numbers is how tables without null say that nothing is there.
    blank = pc.equal(pc.utf8_trim_whitespace(pc.fill_null(column, "")), "") if text else pc.is_null(column)
    there = ~blank.to_numpy().astype(bool)
    values, unreadable = read_numbers(column)
    refused = {"no number": len(unreadable), "infinite": int(np.isinf(values).sum())}
    if text:
        refused["NaN"] = int(np.isnan(values).sum())
    if any(refused.values()):
        odd = (*unreadable, *map(str, values[~np.isfinite(values)].tolist()))
        counted = {why: count for why, count in refused.items() if count}
        raise bad_targets(name, counted, odd[:_SHOWN], of="these rows")
    found[there] = values
    return found


def _as_floats(column: pa.ChunkedArray) -> np.ndarray:
    import numpy as np
    import pyarrow as pa

    if pa.types.is_null(column.type):
        return np.zeros(0)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
        raise DataError(f"a target of {column.type} is no number", code="bad_target", accepted="numbers")
    values: np.ndarray = column.cast(pa.float64()).to_numpy()
    return values


def _number(text: str) -> Any:
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None
