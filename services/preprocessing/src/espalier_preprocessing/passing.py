"""Passes over the rows on Ray Data: the corpus brought in, steps run, states fitted, splits counted and handed out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_runtime.ray_session import own_errors
from espalier_runtime.specs.models import SplitSpec

from espalier_preprocessing.applying import DROPPED, KEY, SPLIT, alive, apply_steps, marked
from espalier_preprocessing.arranging import Step
from espalier_preprocessing.splitting import split_keys, splits_of

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

ROWS_PER_BLOCK = 10_000
Batch = Callable[["pa.Table"], "pa.Table"]


def bring_in(folder: Path, split: SplitSpec) -> ray.data.Dataset:
    """Returns the documents of a corpus in order, with split keys and room for marks.

    The driver puts them into the object store (which spills to disk), so that no other node needs the folder.
    """
    import ray
    from espalier_runtime.tables import iter_parts

    references = [ray.put(_prepared(table, split)) for table in iter_parts(folder, ROWS_PER_BLOCK)]
    return ray.data.from_arrow_refs(references)


def run_steps(rows: ray.data.Dataset, steps: Sequence[Step]) -> ray.data.Dataset:
    """Returns rows after the steps, with marks."""
    return _map(rows, lambda table: apply_steps(table, steps)) if steps else rows


def only_alive(rows: ray.data.Dataset) -> ray.data.Dataset:
    """Returns the rows that are left, without the column of marks, as a corpus transform gets them."""
    return _map(rows, lambda table: alive(table).drop_columns([DROPPED]))


def with_marks(rows: ray.data.Dataset) -> ray.data.Dataset:
    """Returns rows with room for marks again."""
    return _map(rows, marked)


def into_splits(rows: ray.data.Dataset, split: SplitSpec) -> ray.data.Dataset:
    """Returns rows with their split in place of its key."""
    import pyarrow as pa

    def assign(table: pa.Table) -> pa.Table:
        live = table.column(DROPPED).is_null().to_pylist()
        keys = [key if use else None for key, use in zip(table.column(KEY).to_pylist(), live, strict=True)]
        places = iter(splits_of([key for key in keys if key is not None], split))
        splits = pa.array([None if key is None else next(places) for key in keys], pa.string())
        return table.drop_columns([KEY]).append_column(SPLIT, splits)

    return _map(rows, assign)


def count_marks(rows: ray.data.Dataset) -> Counter[str]:
    """Returns how many rows each step has dropped."""
    counts: Counter[str] = Counter()
    with own_errors():
        for table in rows.select_columns([DROPPED]).iter_batches(batch_size=None, batch_format="pyarrow"):
            counts.update(_counts(table.column(DROPPED)))
    return counts


class Seen:
    """What one pass learned: the combined state of the train split, rows per split, rows dropped per step."""

    def __init__(self, state: Any, splits: Counter[str], dropped: Counter[str]) -> None:
        self.state, self.splits, self.dropped = state, splits, dropped


def observe(rows: ray.data.Dataset, steps: Sequence[Step], plugin: Any, *, usable: Batch = lambda rows: rows) -> Seen:
    """Runs the steps and lets a plugin observe the train split; what `usable` marks goes first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def look(table: pa.Table) -> pa.Table:
        done = usable(apply_steps(table, steps))
        live = alive(done)
        train = live.filter(pc.equal(live.column(SPLIT), "train"))
        state = json.dumps(plugin.observe(train).model_dump(mode="json")) if train.num_rows else None
        counts = {"splits": _counts(live.column(SPLIT)), "dropped": _counts(done.column(DROPPED))}
        return pa.table({"state": pa.array([state], pa.string()), "counts": [json.dumps(counts)]})

    states, splits, dropped = [], Counter[str](), Counter[str]()
    with own_errors():
        for batch in _map(rows, look).iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in batch.to_pylist():
                counts = json.loads(row["counts"])
                splits.update(counts["splits"])
                dropped.update(counts["dropped"])
                if row["state"] is not None:
                    states.append(plugin.State.model_validate_json(row["state"]))
    return Seen(reduce(plugin.combine, states) if states else None, splits, dropped)


def finished(rows: ray.data.Dataset, steps: Sequence[Step], usable: Batch) -> ray.data.Dataset:
    """Returns the rows of the dataset with their split, without marks."""
    return _map(rows, lambda table: alive(usable(apply_steps(table, steps))).drop_columns([DROPPED]))


def of_split(rows: ray.data.Dataset, split: str) -> Iterator[pa.Table]:
    """Yields the rows of one split in their order."""
    import pyarrow.compute as pc

    with own_errors():
        for table in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield table.filter(pc.equal(table.column(SPLIT), split)).drop_columns([SPLIT])


def _map(rows: ray.data.Dataset, change: Batch) -> ray.data.Dataset:
    return rows.map_batches(change, batch_size=None, batch_format="pyarrow")


def _prepared(table: pa.Table, split: SplitSpec) -> pa.Table:
    import pyarrow as pa

    return marked(table).append_column(KEY, pa.array(split_keys(table, split), pa.string()))


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {
        entry["values"]: entry["counts"] for entry in column.value_counts().to_pylist() if entry["values"] is not None
    }
