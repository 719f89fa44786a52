"""Values that are not there, and columns of numbers: what transforms that learn from values share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espalier_sdk.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


def is_missing(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Tells for each value whether it is null, NaN or blank text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return pc.equal(pc.utf8_trim_whitespace(pc.fill_null(column, "")), "")
    return pc.is_null(column, nan_is_null=pa.types.is_floating(column.type))


def present(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns the values that are there."""
    import pyarrow.compute as pc

    return column.filter(pc.invert(is_missing(column)))


def numbers(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Returns values that are there as float64; DataError where one is no number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.utf8_trim_whitespace(column)
    try:
        return column.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"column {name!r} needs numbers: {error}",
            field=name,
            accepted="numbers",
            remedy="use most-frequent, or drop these rows with the transform `filter`",
        ) from error


def median(counts: dict[str, int]) -> float:
    """Returns the median of numbers, as text, that were counted."""
    ordered = sorted((float(value), count) for value, count in counts.items())
    middle, passed = (sum(counts.values()) - 1) / 2, 0
    low = high = None
    for value, count in ordered:
        passed += count
        if low is None and passed > int(middle):
            low = value
        if passed > int(middle + 0.5):
            high = value
            break
    assert low is not None and high is not None
    return (low + high) / 2
