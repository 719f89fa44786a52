"""The transform `encode`: side columns, numbers and categories, as one vector per row that a model can read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from espalier_sdk.choice import PluginConfig, State
from espalier_sdk.columns import SIDE
from espalier_sdk.errors import DataError
from espalier_sdk.model import SPLITS, Split
from pydantic import Field, model_validator

from espalier_transforms.values import is_missing, median, numbers, present

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class EncodeConfig(PluginConfig):
    """Which columns are encoded, and how."""

    numeric: tuple[str, ...] = Field(default=(), description="Columns of numbers: standardised.")
    categorical: tuple[str, ...] = Field(default=(), description="Columns of categories: one place per category.")
    into: str = Field(default=SIDE, min_length=1, description="The column that is written: a list of float32 per row.")
    minimum_count: int = Field(
        default=2, ge=1, description="Categories with fewer rows of the train split share one place, `other`."
    )
    maximum_categories: int = Field(
        default=100, ge=1, description="Places of one column at most: the most frequent categories have one."
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.columns:
            raise ValueError("must name a column under numeric or categorical")
        if len({*self.columns, self.into}) < len(self.columns) + 1:
            raise ValueError("names a column twice")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Returns every column that is read."""
        return (*self.numeric, *self.categorical)


class Seen(PluginConfig):
    """What was seen of one column."""

    counts: dict[str, int] = Field(default_factory=dict, description="Rows per value.")
    missing: int = Field(default=0, description="Rows without one.")


class Scale(PluginConfig):
    """How a column of numbers is standardised."""

    median: float = Field(description="What stands for a missing number.")
    mean: float = Field(description="What is subtracted.")
    deviation: float = Field(gt=0, description="What is divided by.")
    flag: bool = Field(description="Whether a second place says that the number was missing.")


class Places(PluginConfig):
    """Which place each category has."""

    categories: tuple[str, ...] = Field(description="Categories in the order of their places.")
    other: bool = Field(description="Whether one more place is for rare and missing categories.")


class EncodeState(State):
    """What the vector is made of: the columns of numbers first, then those of categories."""

    numeric: dict[str, Scale] = Field(default_factory=dict, description="By column of numbers.")
    categorical: dict[str, Places] = Field(default_factory=dict, description="By column of categories.")
    seen: dict[str, Seen] = Field(default_factory=dict, description="What was counted; empty once finished.")


class Encode:
    """Writes one vector of the same width for each row, and leaves the columns it reads as they are.

    A number is standardised; one that is missing is the median, and where train had missing ones a second place says
    so. A category has a place of its own; rare and missing ones share the place `other`, where train had such. What
    train never had is all zeros: a place that was never trained would be noise. A column that is absent, as it may be
    at serving, is missing in every row. Costs memory for each different value of a column.
    """

    contract: ClassVar[int] = 1
    Config: ClassVar[type[EncodeConfig]] = EncodeConfig
    State: ClassVar[type[EncodeState]] = EncodeState
    kind: ClassVar[Literal["fitted"]] = "fitted"
    at_serving: ClassVar[bool] = True

    def __init__(self, config: EncodeConfig) -> None:
        self.config = config

    @property
    def splits(self) -> frozenset[Split]:
        """Returns all splits."""
        return frozenset(SPLITS)

    def observe(self, rows: pa.Table) -> EncodeState:
        """Counts the values of each column; DataError where a number is none."""
        seen = {}
        for name in self.config.columns:
            if name in rows.column_names:
                column = rows.column(name)
                counts = _numbers_seen(column, name) if name in self.config.numeric else _texts_seen(column, name)
                seen[name] = Seen(counts=counts, missing=rows.num_rows - sum(counts.values()))
        return EncodeState(seen=seen)

    def combine(self, left: EncodeState, right: EncodeState) -> EncodeState:
        """Adds what was counted."""
        seen = dict(left.seen)
        for name, more in right.seen.items():
            before = seen.get(name, Seen())
            counts = dict(before.counts)
            for value, count in more.counts.items():
                counts[value] = counts.get(value, 0) + count
            seen[name] = Seen(counts=counts, missing=before.missing + more.missing)
        return EncodeState(seen=seen)

    def finish(self, seen: EncodeState) -> EncodeState:
        """Returns scales and places; DataError where a column has no value in the train split."""
        for name in self.config.columns:
            if name not in seen.seen or not seen.seen[name].counts:
                raise DataError(
                    f"column {name!r} has no value in the train split, so there is nothing to encode",
                    code="empty_column",
                    field=name,
                    remedy="leave the column out",
                )
        return EncodeState(
            numeric={name: _scale(seen.seen[name]) for name in self.config.numeric},
            categorical={name: self._places(seen.seen[name]) for name in self.config.categorical},
        )

    def apply(self, rows: pa.Table, *, state: EncodeState) -> pa.Table:
        """Returns rows with the vector; DataError where its column is there already, or a number is none."""
        import numpy as np

        if self.config.into in rows.column_names:
            raise DataError(
                f"there is a column {self.config.into!r} already",
                field=self.config.into,
                remedy="choose another name with `into`",
            )
        parts = [part for name, scale in state.numeric.items() for part in _standardised(rows, name, scale)]
        parts += [_one_hot(rows, name, places) for name, places in state.categorical.items()]
        return rows.append_column(self.config.into, _lists(np.concatenate(parts, axis=1)))

    def _places(self, seen: Seen) -> Places:
        ordered = sorted(seen.counts, key=lambda value: (-seen.counts[value], value))[: self.config.maximum_categories]
        kept = tuple(sorted(value for value in ordered if seen.counts[value] >= self.config.minimum_count))
        return Places(categories=kept, other=seen.missing > 0 or len(kept) < len(seen.counts))


def _scale(seen: Seen) -> Scale:
    # Exact sums, so that no order of adding shows.
    rows = sum(seen.counts.values())
    mean = sum((Fraction(float(value)) * count for value, count in seen.counts.items()), Fraction()) / rows
    squares: Iterable[Fraction] = ((Fraction(float(value)) - mean) ** 2 * count for value, count in seen.counts.items())
    deviation = math.sqrt(sum(squares, Fraction()) / rows)
    return Scale(median=median(seen.counts), mean=float(mean), deviation=deviation or 1.0, flag=seen.missing > 0)


def _numbers_seen(column: pa.ChunkedArray, name: str) -> dict[str, int]:
    import numpy as np

    values = _floats(column, name)
    found, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    return dict(zip(map(str, found.tolist()), counts.tolist(), strict=True))


def _texts_seen(column: pa.ChunkedArray, name: str) -> dict[str, int]:
    counted = present(_texts(column, name)).value_counts().to_pylist()
    return {entry["values"]: entry["counts"] for entry in counted}


def _floats(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """Returns the numbers of a column, NaN where one is missing; DataError for text that is none, and infinity."""
    import numpy as np

    values = np.full(len(column), np.nan)
    there = ~is_missing(column).to_numpy().astype(bool)
    values[there] = numbers(present(column), name).to_numpy()
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise DataError(f"column {name!r} has {infinite} infinite values", field=name, accepted="finite numbers")
    return values


def _texts(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        texts = column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"column {name!r} holds {column.type}, which is no category",
            field=name,
            accepted="text, whole numbers or booleans",
        ) from error
    return pc.utf8_trim_whitespace(texts)


def _standardised(rows: pa.Table, name: str, scale: Scale) -> list[np.ndarray]:
    import numpy as np

    there = name in rows.column_names
    values = _floats(rows.column(name), name) if there else np.full(rows.num_rows, np.nan)
    absent = np.isnan(values)
    found = [(np.where(absent, scale.median, values) - scale.mean) / scale.deviation]
    if scale.flag:
        found.append(absent)
    return [part.astype(np.float32)[:, None] for part in found]


def _one_hot(rows: pa.Table, name: str, places: Places) -> np.ndarray:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    known = len(places.categories)
    found = np.zeros((rows.num_rows, known + places.other), dtype=np.float32)
    column = rows.column(name) if name in rows.column_names else pa.chunked_array([pa.nulls(rows.num_rows)])
    place = pc.index_in(_texts(column, name), value_set=pa.array(places.categories, pa.string()))
    at = pc.fill_null(place, known).to_numpy()
    inside = np.flatnonzero(at < found.shape[1])  # without a place `other`, what train never had stays zero
    found[inside, at[inside]] = 1.0
    return found


def _lists(values: np.ndarray) -> pa.ListArray:
    import numpy as np
    import pyarrow as pa

    rows, width = values.shape
    offsets = np.arange(rows + 1, dtype=np.int32) * width
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel(), pa.float32()))
