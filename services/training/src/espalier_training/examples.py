"""Prepared rows as a map-style dataset that the trainer shuffles and shards by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from espalier_runtime.tables import read_parts
from espalier_sdk.columns import ENCODED_ROW, RESERVED_PREFIX, SCORED_BYTES, TARGET

_NOT_TRAINED = (ENCODED_ROW, SCORED_BYTES, TARGET)


class Examples:
    """Lists of tokens and labels by position, read from flat arrays: no Arrow work per example."""

    def __init__(self, folder: Path) -> None:
        table = read_parts(folder)
        self._columns = {
            name: _flat(table.column(name))
            for name in table.column_names
            # What begins with the prefix is for `decode`, which training never calls.
            if name not in _NOT_TRAINED and not name.startswith(RESERVED_PREFIX)
        }
        self._count = table.num_rows
        values = self._columns["input_ids"][0]
        self.tokens = len(values)

    def lengths(self) -> list[int]:
        """Returns the tokens of each example."""
        offsets = self._columns["input_ids"][1]
        assert offsets is not None, "input_ids is a list column"
        found: list[int] = np.diff(offsets).tolist()
        return found

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, (values, offsets) in self._columns.items():
            found[name] = values[index] if offsets is None else values[offsets[index] : offsets[index + 1]]
        return found


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray | None]:
    joined = column.combine_chunks()
    if isinstance(joined, pa.ChunkedArray):
        joined = pa.concat_arrays(joined.chunks)
    if not pa.types.is_list(joined.type):
        return joined.to_numpy(zero_copy_only=False), None
    return joined.values.to_numpy(zero_copy_only=False), joined.offsets.to_numpy()
