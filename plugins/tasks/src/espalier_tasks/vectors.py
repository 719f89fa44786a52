"""Columns of vectors: lists of numbers, as many in every row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espalier_sdk.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def matrix(column: pa.ChunkedArray, *, name: str) -> np.ndarray:
    """Returns the vectors of a column as (rows, width) float32; DataError where they differ in width."""
    import numpy as np
    import pyarrow.compute as pc

    widths = pc.unique(pc.list_value_length(column)).to_pylist()
    if not widths:
        return np.zeros((0, 0), dtype=np.float32)
    if len(widths) > 1:
        told = " or ".join(map(str, sorted(width or 0 for width in widths)))
        raise DataError(f"column {name!r} has {told} numbers in a row, must have as many in each", field=name)
    flat = pc.list_flatten(column).to_numpy()
    found: np.ndarray = flat.reshape(len(column), widths[0] or 0).astype(np.float32, copy=False)
    return found


def lists(values: np.ndarray) -> pa.ListArray:
    """Returns (rows, width) as a column of lists of float32."""
    import numpy as np
    import pyarrow as pa

    rows, width = values.shape
    offsets = np.arange(rows + 1, dtype=np.int32) * width
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel(), pa.float32()))
