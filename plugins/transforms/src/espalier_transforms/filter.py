"""The transform `filter`: rows that do not meet conditions on their columns are dropped."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from espalier_sdk.choice import PluginConfig
from espalier_sdk.errors import DataError
from espalier_sdk.model import SPLITS, Split
from pydantic import Field, field_validator, model_validator

from espalier_transforms.columns import need_column

if TYPE_CHECKING:
    import pyarrow as pa

Value = str | int | float | bool
Values = Value | tuple[Value, ...]


class Condition(PluginConfig):
    """What a column must be; all that is said must hold."""

    not_null: bool = Field(default=False, description="The value must be there, and not be blank.")
    min_length: int | None = Field(default=None, ge=0, description="Least characters, white space at the ends aside.")
    max_length: int | None = Field(default=None, ge=0, description="Most characters, white space at the ends aside.")
    equals: Values | None = Field(default=None, description="The value, or one of several.")
    not_equals: Values | None = Field(default=None, description="None of these values; a missing value passes.")
    matches: str | None = Field(default=None, description="A regular expression (RE2) that is found in the value.")
    not_matches: str | None = Field(default=None, description="One that is not found; a missing value passes.")
    at_least: float | None = Field(default=None, description="Least number.")
    at_most: float | None = Field(default=None, description="Greatest number.")

    @field_validator("matches", "not_matches")
    @classmethod
    def _is_pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"must say at least one of {', '.join(type(self).model_fields)}")
        return self


class FilterConfig(PluginConfig):
    """Which rows stay."""

    columns: dict[str, Condition] = Field(min_length=1, description="Conditions by column; a row must meet all.")
    splits: tuple[Split, ...] = Field(
        default=SPLITS,
        min_length=1,
        description="Where rows are dropped: all splits, or after the split in those named.",
    )


class Filter:
    """Drops rows that do not meet conditions.

    With all splits (the default) it says what the data are about, and acts before the split: rows outside are no
    one's business, in testing as in training. With `splits: [train]` it thins what is learned from, and acts after
    the split, so that the test split stays as the world is. It never acts at serving, where a question is answered
    whatever it looks like.
    """

    contract: ClassVar[int] = 1
    Config: ClassVar[type[FilterConfig]] = FilterConfig
    kind: ClassVar[Literal["record"]] = "record"
    at_serving: ClassVar[bool] = False

    def __init__(self, config: FilterConfig) -> None:
        self.config = config

    @property
    def splits(self) -> frozenset[Split]:
        """Returns the splits in which rows are dropped."""
        return frozenset(self.config.splits)

    def apply(self, rows: pa.Table) -> pa.Table:
        """Returns the rows that meet all conditions; DataError where a column is absent or a number is none."""
        import pyarrow.compute as pc

        masks = [
            pc.fill_null(mask, False)
            for name, condition in self.config.columns.items()
            for mask in _masks(need_column(rows, name), name, condition)
        ]
        keep = masks[0]
        for mask in masks[1:]:
            keep = pc.and_(keep, mask)
        return rows.filter(keep)


def _masks(column: pa.ChunkedArray, name: str, condition: Condition) -> list[pa.ChunkedArray]:
    """Returns a mask per condition; null stands for no."""
    import pyarrow.compute as pc

    texts = _as_text(column, name)
    trimmed = pc.utf8_trim_whitespace(texts)
    absent = pc.or_(pc.is_null(texts), pc.equal(pc.fill_null(trimmed, ""), ""))
    length = pc.utf8_length(trimmed)
    masks: list[Any] = []
    if condition.not_null:
        masks.append(pc.invert(absent))
    if condition.min_length is not None:
        masks.append(pc.greater_equal(length, condition.min_length))
    if condition.max_length is not None:
        masks.append(pc.less_equal(length, condition.max_length))
    if condition.equals is not None:
        masks.append(_is_one_of(texts, condition.equals))
    if condition.not_equals is not None:
        masks.append(pc.invert(_is_one_of(texts, condition.not_equals)))
    if condition.matches is not None:
        masks.append(_found(texts, condition.matches, name))
    if condition.not_matches is not None:
        masks.append(pc.invert(pc.fill_null(_found(texts, condition.not_matches, name), False)))
    if condition.at_least is not None:
        masks.append(pc.greater_equal(_numbers(column, name), condition.at_least))
    if condition.at_most is not None:
        masks.append(pc.less_equal(_numbers(column, name), condition.at_most))
    # `not_null: false` alone asks for nothing.
    return masks or [pc.is_valid(pc.fill_null(texts, ""))]


def _is_one_of(texts: pa.ChunkedArray, values: Values) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    several = values if isinstance(values, tuple) else (values,)
    wanted = [str(value).lower() if isinstance(value, bool) else str(value) for value in several]
    return pc.is_in(texts, value_set=pa.array(wanted, pa.string()))


def _found(texts: pa.ChunkedArray, pattern: str, name: str) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return pc.match_substring_regex(texts, pattern)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{pattern!r} cannot be used: {error}", field=name, remedy="write it without look-around or back-references"
        ) from error


def _numbers(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type):
        trimmed = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
    try:
        return column.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"column {name!r} is compared with a number, but holds {error}", field=name, accepted="numbers"
        ) from error


def _as_text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    import pyarrow as pa

    try:
        return column if column.type == pa.string() else column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise DataError(f"column {name!r} holds {column.type}: no condition fits", field=name) from error
