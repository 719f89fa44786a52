"""Prepared rows as a map-style dataset that the trainer shuffles and shards by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from espalier_runtime.tables import read_parts
from espalier_sdk.columns import ENCODED_ROW, LABELS, RESERVED_PREFIX, SCORED_BYTES, TARGET

_NOT_TRAINED = (ENCODED_ROW, SCORED_BYTES, TARGET)


class Examples:
    """Lists of tokens and labels by position, read from flat arrays: no Arrow work per example.

    Rows whose one label is none of the model's are left out. `share` of the others, drawn by `seed`, are there; a
    smaller share is part of a larger one. `whole` counts them.
    """

    def __init__(self, folder: Path, *, share: float = 1.0, seed: int = 0) -> None:
        table = _with_label(read_parts(folder))
        self._columns = {
            name: _flat(table.column(name))
            for name in table.column_names
            # What begins with the prefix is for `decode`, which training never calls.
            if name not in _NOT_TRAINED and not name.startswith(RESERVED_PREFIX)
        }
        self.whole = table.num_rows
        self._places: np.ndarray | None = None
        if share < 1:
            drawn = np.random.default_rng(seed).permutation(self.whole)
            self._places = np.sort(drawn[: max(1, round(share * self.whole))])
        self.tokens = sum(self.lengths())

    def lengths(self) -> list[int]:
        """Returns the tokens of each example."""
        offsets = self._columns["input_ids"][1]
        assert offsets is not None, "input_ids is a list column"
        lengths = np.diff(offsets)
        found: list[int] = (lengths if self._places is None else lengths[self._places]).tolist()
        return found

    def lists(self, name: str) -> list[np.ndarray]:
        """Returns the values of a column of lists, one per example; none where there is no such column."""
        values, offsets = self._columns.get(name, (None, None))
        if values is None or offsets is None:
            return []
        places = range(self.whole) if self._places is None else self._places.tolist()
        return [values[offsets[place] : offsets[place + 1]] for place in places]

    def __len__(self) -> int:
        return self.whole if self._places is None else len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self._places is not None:
            index = int(self._places[index])
        found: dict[str, Any] = {}
        for name, (values, offsets) in self._columns.items():
            found[name] = values[index] if offsets is None else values[offsets[index] : offsets[index + 1]]
        return found


def _with_label(table: pa.Table) -> pa.Table:
    """Returns the rows that teach something: a batch of others alone would have no loss."""
    import pyarrow.compute as pc

    if LABELS not in table.column_names or not pa.types.is_integer(table.schema.field(LABELS).type):
        return table
    return table.filter(pc.greater_equal(table.column(LABELS), 0))


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray | None]:
    joined = column.combine_chunks()
    if isinstance(joined, pa.ChunkedArray):
        joined = pa.concat_arrays(joined.chunks)
    if not pa.types.is_list(joined.type):
        return joined.to_numpy(zero_copy_only=False), None
    return joined.values.to_numpy(zero_copy_only=False), joined.offsets.to_numpy()
