"""Steps applied to a table whose dropped rows stay behind as marks, so that they can be counted wherever they fell.

A mark is a row that holds only its number and the name of what dropped it. Ray Data may run a function twice or
cut its input anew: what a row carries itself is counted right all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from espalier_sdk.columns import ROW
from espalier_sdk.model import BESIDE, SPLITS

from espalier_preprocessing.arranging import Step

if TYPE_CHECKING:
    import pyarrow as pa

DROPPED = "espalier_dropped"  # str or null: what dropped the row
KEY = "espalier_split_key"  # str: what decides the row's split
SPLIT = "espalier_split"  # str: the split it is in
NO_TARGET = "no target"
NO_TEXT = "no text"
_LABELS = "labels"  # the use of a column of label sets


def marked(rows: pa.Table) -> pa.Table:
    """Returns rows with the column of marks."""
    import pyarrow as pa

    return rows.append_column(DROPPED, pa.nulls(rows.num_rows, pa.string()))


def alive(rows: pa.Table) -> pa.Table:
    """Returns the rows that nothing has dropped."""
    import pyarrow.compute as pc

    return rows.filter(pc.is_null(rows.column(DROPPED))) if rows.column(DROPPED).null_count < rows.num_rows else rows


def apply_steps(rows: pa.Table, steps: Sequence[Step]) -> pa.Table:
    """Returns rows after all steps; what they drop is marked."""
    for step in steps:
        rows = _apply_step(rows, step)
    return rows


def drop_unusable(
    rows: pa.Table, columns: Mapping[str, str], *, optional: Mapping[str, Sequence[str]] | None = None
) -> pa.Table:
    """Marks rows that cannot be learned or measured: without a target, or any text. Side columns may be empty.

    `optional` has targets that the rows of some splits may lack. Labels that are joined in a text may be none: an empty
    text is a target, also where a file of delimited values left nothing in its place.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    joined = [name for name, use in columns.items() if use == _LABELS and _is_text(rows.column(name))]
    for name in joined:
        rows = rows.set_column(rows.column_names.index(name), name, pc.fill_null(rows.column(name), ""))

    texts = [name for name, use in columns.items() if use == "text"]
    targets = [name for name, use in columns.items() if use != "text" and use not in BESIDE and name not in joined]
    live = alive(rows)
    keep = live
    for name in targets:
        lacking = _is_blank(keep.column(name))
        if optional and name in optional:
            free = pc.is_in(keep.column(SPLIT), value_set=pa.array(optional[name], pa.string()))
            lacking = pc.and_(lacking, pc.invert(free))
        keep = keep.filter(pc.invert(lacking))
    rows = _with_marks(rows, live, keep, NO_TARGET)
    if not texts:
        return rows
    live = alive(rows)
    blank = _is_blank(live.column(texts[0]))
    for name in texts[1:]:
        blank = pc.and_(blank, _is_blank(live.column(name)))
    return _with_marks(rows, live, live.filter(pc.invert(blank)), NO_TEXT)


def _apply_step(rows: pa.Table, step: Step) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    live = alive(rows)
    splits = step.plugin.splits
    if splits == frozenset(SPLITS):
        return _with_marks(rows, live, _run(step, live), step.name)
    inside = pc.is_in(live.column(SPLIT), value_set=pa.array(sorted(splits), pa.string()))
    touched, others = live.filter(inside), live.filter(pc.invert(inside))
    after = pa.concat_tables([_run(step, touched), others], promote_options="permissive").sort_by(ROW)
    return _with_marks(rows, live, after, step.name)


def _run(step: Step, rows: pa.Table) -> pa.Table:
    result: pa.Table = step.plugin.apply(rows, state=step.state) if step.kind == "fitted" else step.plugin.apply(rows)
    return result


def _with_marks(rows: pa.Table, before: pa.Table, after: pa.Table, name: str) -> pa.Table:
    """Returns what is left, the marks that were there, and a mark for each row that went, in the rows' order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    old_marks = rows.num_rows - before.num_rows
    if after.num_rows == before.num_rows and not old_marks:
        return after
    gone = before.filter(pc.invert(pc.is_in(before.column(ROW), value_set=after.column(ROW).combine_chunks())))
    kept = [SPLIT] if SPLIT in rows.column_names else []
    new = gone.select([ROW, *kept]).append_column(DROPPED, pa.repeat(name, gone.num_rows))
    old = rows.filter(pc.is_valid(rows.column(DROPPED))).select([ROW, *kept, DROPPED])
    together = pa.concat_tables([after, old.cast(new.schema), new], promote_options="default")
    return together.sort_by(ROW)


def _is_blank(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if _is_text(column):
        return pc.equal(pc.utf8_trim_whitespace(pc.fill_null(column, "")), "")
    return pc.is_null(column, nan_is_null=pa.types.is_floating(column.type))


def _is_text(column: pa.ChunkedArray) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))
