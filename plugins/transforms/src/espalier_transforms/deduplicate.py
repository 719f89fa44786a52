"""The transform `deduplicate`: of rows that are the same, the first stays. Runs on Ray Data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from espalier_sdk.choice import PluginConfig
from espalier_sdk.columns import ROW
from pydantic import Field

from espalier_transforms.columns import need_column, own_columns

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import ray.data

_HIGH, _LOW, _BUCKET = "high", "low", "bucket"  # the halves of a row's key, and where its like are gathered
_KEY_BYTES = 16
_ROWS_PER_BUCKET = 1_000_000  # keys and row numbers only: 32 MB


class DeduplicateConfig(PluginConfig):
    """What makes two rows the same."""

    columns: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="The columns that must be equal; default: all of them."
    )
    method: Literal["exact"] = Field(default="exact", description="exact: equal values.")
    normalise: bool = Field(default=False, description="Whether case and white space make no difference.")


class Deduplicate:
    """Keeps the first of equal rows, in the order of the corpus; rows that say nothing in the columns all stay.

    Only keys and row numbers are shuffled; what is spread to the workers is the list of rows that go. The corpus is
    read twice: it should be materialised where making it is dear.
    """

    contract: ClassVar[int] = 1
    Config: ClassVar[type[DeduplicateConfig]] = DeduplicateConfig
    kind: ClassVar[Literal["corpus"]] = "corpus"

    def __init__(self, config: DeduplicateConfig) -> None:
        self.config = config

    def apply(self, documents: ray.data.Dataset) -> ray.data.Dataset:
        """Returns the documents without repetitions; DataError where a named column is absent."""
        import ray

        keys = documents.map_batches(self._keys, batch_format="pyarrow", batch_size=None).materialize()
        buckets = 1 + keys.count() // _ROWS_PER_BUCKET
        placed = keys.map_batches(_place, fn_kwargs={"buckets": buckets}, batch_format="pyarrow", batch_size=None)
        with _sorting_shuffle(placed):
            groups = placed.groupby(_BUCKET, num_partitions=buckets)
            later = groups.map_groups(_all_but_first, batch_format="pyarrow")
            dropped = ray.put(_rows_of(later.iter_batches(batch_format="pyarrow", batch_size=None)))
        return documents.map_batches(_without, fn_kwargs={"dropped": dropped}, batch_format="pyarrow", batch_size=None)

    def _keys(self, rows: pa.Table) -> pa.Table:
        import numpy as np
        import pyarrow as pa

        columns = self.config.columns or own_columns(rows.column_names)
        keys = row_keys([need_column(rows, name) for name in columns], normalise=self.config.normalise)
        told = [place for place, key in enumerate(keys) if key is not None]
        halves = np.frombuffer(b"".join(keys[place] or b"" for place in told), dtype=">i8").astype(np.int64)
        halves = halves.reshape(-1, 2)  # (rows that say something, 2)
        return pa.table({_HIGH: halves[:, 0], _LOW: halves[:, 1], ROW: rows.column(ROW).take(told)})


def row_keys(columns: Sequence[pa.ChunkedArray], *, normalise: bool) -> list[bytes | None]:
    """Returns a hash for each row; rows have the same hash when all their values are the same.

    None where all values are missing or blank: two rows that say nothing do not say the same.
    """
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str).encode
    values = [column.to_pylist() for column in columns]
    if normalise:
        values = [[_normal(value) for value in column] for column in values]
    return [
        None if all(map(_is_blank, row)) else hashlib.blake2b(encode(row).encode(), digest_size=_KEY_BYTES).digest()
        for row in zip(*values, strict=True)
    ]


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _normal(value: Any) -> Any:
    return " ".join(value.casefold().split()) if isinstance(value, str) else value


@contextmanager
def _sorting_shuffle(rows: ray.data.Dataset) -> Iterator[None]:
    """Lets Ray Data shuffle by sorting: its hash shuffle starts actors first (4.3 s against 0.2 s, 400 rows)."""
    from ray.data.context import ShuffleStrategy

    context = rows.context  # a dataset keeps the context that it was made in
    usual = context.shuffle_strategy
    context.shuffle_strategy = ShuffleStrategy.SORT_SHUFFLE_PULL_BASED
    try:
        yield
    finally:
        context.shuffle_strategy = usual


def _place(keys: pa.Table, *, buckets: int) -> pa.Table:
    import numpy as np

    return keys.append_column(_BUCKET, [np.mod(keys.column(_HIGH).to_numpy(), buckets)])


def _all_but_first(bucket: pa.Table) -> pa.Table:
    """Returns the numbers of rows whose key stands earlier in the same bucket."""
    # Whole buckets are groups, not keys: a call for each key costs 37 microseconds.
    import numpy as np
    import pyarrow as pa

    high, low, row = (bucket.column(name).to_numpy() for name in (_HIGH, _LOW, ROW))
    order = np.lexsort((row, low, high))
    high, low, row = high[order], low[order], row[order]
    again = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    return pa.table({ROW: row[1:][again]})


def _rows_of(batches: Any) -> np.ndarray:
    import numpy as np

    found = [batch.column(ROW).to_numpy() for batch in batches]
    return np.sort(np.concatenate(found)) if found else np.zeros(0, np.int64)


def _without(rows: pa.Table, dropped: Any) -> pa.Table:
    import numpy as np
    import pyarrow as pa
    import ray

    gone = ray.get(dropped) if isinstance(dropped, ray.ObjectRef) else dropped
    return rows.filter(pa.array(~np.isin(rows.column(ROW).to_numpy(), gone)))
