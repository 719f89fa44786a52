"""The transform `missing`: what happens to a value that is not there, column by column."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from espalier_sdk.choice import PluginConfig, State
from espalier_sdk.errors import DataError
from espalier_sdk.model import SPLITS, Split
from pydantic import Field

from espalier_transforms.values import is_missing, median, numbers, present

if TYPE_CHECKING:
    import pyarrow as pa

Learned = Literal["most-frequent", "mean", "median"]
Fill = str | int | float | bool
Kind = Literal["text", "integer", "number", "boolean"]


class Constant(PluginConfig):
    """A value that stands for all that are missing."""

    constant: Fill = Field(description="The value.")


class MissingConfig(PluginConfig):
    """A policy per column."""

    columns: dict[str, Literal["drop", "error", "most-frequent", "mean", "median"] | Constant] = Field(
        min_length=1,
        description="drop (the row), error, most-frequent, mean, median or {constant: value}; columns not named stay.",
    )


class Seen(PluginConfig):
    """What was seen of one column."""

    kind: Kind | None = Field(default=None, description="What most-frequent values are; text where batches differ.")
    counts: dict[str, int] = Field(default_factory=dict, description="Rows per value, for most-frequent and median.")
    rows: int = Field(default=0, description="Rows with a value, for mean.")
    total: str = Field(default="0", description="Their exact sum as a fraction, so that no order of adding shows.")


class MissingState(State):
    """What stands for a missing value, per column."""

    fills: dict[str, Fill] = Field(default_factory=dict, description="The learned values.")
    seen: dict[str, Seen] = Field(default_factory=dict, description="What was counted; empty once finished.")


class Missing:
    """Fills or drops missing values: null, blank text and NaN.

    Learns from the train split alone, and acts on all splits and at serving. A value learned by `most-frequent` or
    `median` costs memory for each different value; `mean` costs none. A text column is filled with text. A column
    that is absent, as it may be at serving, or null in every row is missing in every row, and of its fill's own type.
    """

    contract: ClassVar[int] = 1
    Config: ClassVar[type[MissingConfig]] = MissingConfig
    State: ClassVar[type[MissingState]] = MissingState
    kind: ClassVar[Literal["fitted"]] = "fitted"
    at_serving: ClassVar[bool] = True

    def __init__(self, config: MissingConfig) -> None:
        self.config = config

    @property
    def splits(self) -> frozenset[Split]:
        """Returns all splits."""
        return frozenset(SPLITS)

    def observe(self, rows: pa.Table) -> MissingState:
        """Counts or sums the values of the columns whose policy learns."""
        return MissingState(
            seen={
                name: _observe(present(rows.column(name)), name, policy)
                for name, policy in self._learned().items()
                if name in rows.column_names
            }
        )

    def combine(self, left: MissingState, right: MissingState) -> MissingState:
        """Adds what was seen."""
        names = [*left.seen, *(name for name in right.seen if name not in left.seen)]
        return MissingState(seen={name: _add(left.seen.get(name), right.seen.get(name)) for name in names})

    def finish(self, seen: MissingState) -> MissingState:
        """Returns the values; DataError where a column has none to learn from."""
        return MissingState(
            fills={name: _fill(seen.seen.get(name), name, policy) for name, policy in self._learned().items()}
        )

    def apply(self, rows: pa.Table, *, state: MissingState) -> pa.Table:
        """Returns rows without missing values in the named columns; DataError under the policy `error`."""
        import pyarrow.compute as pc

        for name, policy in self.config.columns.items():
            if name not in rows.column_names:  # at serving only a task's columns are there
                if policy != "drop" and policy != "error":
                    rows = rows.append_column(name, _repeated(self._value(name, state), rows.num_rows))
                continue
            absent = is_missing(rows.column(name))
            if policy == "drop":
                rows = rows.filter(pc.invert(absent))
            elif policy == "error":
                if pc.any(absent).as_py():
                    raise _refused(rows, name, pc.sum(absent).as_py())
            else:
                filled = _filled(rows.column(name), absent, self._value(name, state), name)
                rows = rows.set_column(rows.column_names.index(name), name, filled)
        return rows

    def _value(self, name: str, state: MissingState) -> Fill:
        policy = self.config.columns[name]
        return policy.constant if isinstance(policy, Constant) else state.fills[name]

    def _learned(self) -> dict[str, Learned]:
        return {
            name: policy
            for name, policy in self.config.columns.items()
            if policy == "most-frequent" or policy == "mean" or policy == "median"  # each said, for the type
        }


def _observe(values: pa.ChunkedArray, name: str, policy: Learned) -> Seen:
    if policy == "mean":
        total = sum((Fraction(value) for value in numbers(values, name).to_pylist()), Fraction())
        return Seen(rows=len(values), total=str(total))
    texts = numbers(values, name) if policy == "median" else values
    if not len(texts):
        return Seen()
    counts = {_text(entry["values"]): entry["counts"] for entry in texts.value_counts().to_pylist()}
    return Seen(kind=_kind(values.type), counts=counts)


def _kind(of: pa.DataType) -> Kind:
    import pyarrow as pa

    if pa.types.is_boolean(of):
        return "boolean"
    if pa.types.is_integer(of):
        return "integer"
    return "number" if pa.types.is_floating(of) else "text"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _add(left: Seen | None, right: Seen | None) -> Seen:
    if left is None or right is None:
        return left or right or Seen()
    counts = dict(left.counts)
    for value, count in right.counts.items():
        counts[value] = counts.get(value, 0) + count
    kinds = {one.kind for one in (left, right) if one.kind is not None}
    return Seen(
        kind=None if not kinds else kinds.pop() if len(kinds) == 1 else "text",
        counts=counts,
        rows=left.rows + right.rows,
        total=str(Fraction(left.total) + Fraction(right.total)),
    )


def _fill(seen: Seen | None, name: str, policy: Learned) -> Fill:
    if seen is None or not (seen.counts or seen.rows):
        raise DataError(
            f"column {name!r} has no value in the train split, so there is no {policy} of it",
            field=name,
            remedy="use {constant: ...} or drop, or leave the column out",
        )
    if policy == "mean":
        return float(Fraction(seen.total) / seen.rows)
    if policy == "most-frequent":
        # Of equally frequent values the first in order: no accident of reading decides.
        return _of_kind(min(seen.counts, key=lambda value: (-seen.counts[value], value)), seen.kind)
    return median(seen.counts)


def _of_kind(text: str, kind: Kind | None) -> Fill:
    if kind == "boolean":
        return text == "true"
    return int(text) if kind == "integer" else float(text) if kind == "number" else text


def _repeated(fill: Fill, count: int) -> pa.ChunkedArray:
    import pyarrow as pa

    value = pa.scalar(fill)
    return pa.chunked_array([pa.repeat(value, count)], value.type)


def _filled(column: pa.ChunkedArray, absent: pa.ChunkedArray, fill: Fill, name: str) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_null(column.type):
        return _repeated(fill, len(column))
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        value = pa.scalar(_number_text(fill), column.type)
    else:
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            fill = _number(fill)
        # By the fill, not by what these rows hold: all batches of a column must have one type.
        if pa.types.is_integer(column.type) and isinstance(fill, float) and not fill.is_integer():
            column = column.cast(pa.float64())
        try:
            value = pa.scalar(fill).cast(column.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(f"column {name!r} holds {column.type}, which {fill!r} is not", field=name) from error
    return pc.if_else(absent, value, column)


def _number(fill: Fill) -> Fill:
    """Returns text that is a number as one, whole ones exactly: other rows of the column may have been text."""
    for read in (int, float):
        if isinstance(fill, str):
            with suppress(ValueError):
                fill = read(fill)
    return fill


def _number_text(fill: Fill) -> str:
    if isinstance(fill, float) and fill.is_integer():
        return str(int(fill))
    return _text(fill)


def _refused(rows: pa.Table, name: str, count: int) -> DataError:
    return DataError(
        f"column {name!r} has {count} missing values of {rows.num_rows} rows",
        code="missing_value",
        field=name,
        remedy="fill them in the data, or choose another policy than `error`",
    )
