"""The kits for transforms: rows keep their order and place, one row is what it is among others, states survive JSON."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from espalier_sdk.columns import ID, LINE, ORIGIN, ROW
from espalier_sdk.model import SPLITS
from espalier_sdk.testing.fitting import check_monoid
from espalier_sdk.testing.plugin import check_plugin

if TYPE_CHECKING:
    import pyarrow as pa

Expected = Sequence[Mapping[str, Any]]


def check_record_transform(name: str, config: Mapping[str, Any], rows: pa.Table, *, expected: Expected) -> None:
    """Checks a transform that learns nothing against the rows that it must make of `rows`.

    It says where it acts; it changes a row in the same way alone and among others, keeps the order and the columns
    that stages add, gives no rows for no rows with the same schema, changes nothing that it was given, and works in
    another process. One that acts at serving drops no row of these and does without the columns it does not need; one
    that makes a text longer or shorter says so by `rewrites_text`.
    """
    transform = _make(name, config, kind="record")
    _check_apply(name, transform, rows, expected, transform.apply)


def check_fitted_transform(name: str, config: Mapping[str, Any], rows: pa.Table, *, expected: Expected) -> Any:
    """Checks a transform that learns from rows of a train split, as `check_record_transform` does; returns its state.

    Fitting does not depend on how rows are cut, and the state acts the same after a way through JSON.
    """
    transform = _make(name, config, kind="fitted")
    state = check_monoid(name, transform, rows)
    again = transform.State.model_validate_json(json.dumps(state.model_dump(mode="json")))

    def apply(table: pa.Table) -> pa.Table:
        result: pa.Table = transform.apply(table, state=again)
        return result

    _check_apply(name, transform, rows, expected, apply)
    return state


def check_corpus_transform(name: str, config: Mapping[str, Any], rows: pa.Table, *, kept: Sequence[int]) -> None:
    """Checks a transform of the whole corpus on a running Ray: which rows, by number, stay in which order.

    The answer does not depend on how the corpus is cut into blocks, and its columns are those it was given.
    """
    import ray
    import ray.data

    transform = _make(name, config, kind="corpus")
    numbered = _with_stage_columns(rows)
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    for size in (rows.num_rows, 2, 1):
        pieces = [ray.put(numbered.slice(start, size)) for start in range(0, rows.num_rows, size)]
        result = transform.apply(ray.data.from_arrow_refs(pieces)).materialize()
        tables = list(result.iter_batches(batch_size=None, batch_format="pyarrow"))
        left = [row for table in tables for row in table.column(ROW).to_pylist()]
        assert left == list(kept), f"{name}: in blocks of {size} rows, {left} stay, {list(kept)} were expected"
        for table in tables:
            assert set(table.column_names) == set(numbered.column_names), f"{name}: changes the columns"


def _make(name: str, config: Mapping[str, Any], *, kind: str) -> Any:
    plugin = check_plugin("espalier.transforms", name)
    assert plugin.kind == kind, f"{name}: kind is {plugin.kind!r}, this kit is for {kind!r}"
    transform = plugin(plugin.Config.model_validate(dict(config)))
    if kind != "corpus":
        assert isinstance(plugin.at_serving, bool), f"{name}: at_serving must be true or false"
        splits = transform.splits
        assert isinstance(splits, frozenset) and splits and splits <= set(SPLITS), f"{name}: splits is {splits!r}"
        assert not plugin.at_serving or splits == set(SPLITS), f"{name}: acts at serving, so it must act on all splits"
    return pickle.loads(pickle.dumps(transform))


def _with_stage_columns(rows: pa.Table) -> pa.Table:
    import pyarrow as pa

    count = rows.num_rows
    return (
        rows.append_column(ORIGIN, pa.array(["<b>a</b>  b"] * count))
        .append_column(LINE, pa.array(range(1, count + 1), pa.int64()))
        .append_column(ID, pa.array([f"{row:032x}" for row in range(count)]))
        .append_column(ROW, pa.array(range(count), pa.int64()))
    )


def _check_apply(
    name: str, transform: Any, rows: pa.Table, expected: Expected, apply: Callable[[pa.Table], pa.Table]
) -> None:
    import pyarrow as pa

    full = _with_stage_columns(rows)
    before = full.to_pylist()
    result = apply(full)
    # As text, because NaN differs from itself.
    assert repr(full.to_pylist()) == repr(before), f"{name}: apply() changed what it was given"
    own = [{key: value for key, value in row.items() if key in rows.column_names} for row in result.to_pylist()]
    assert own == [dict(row) for row in expected], f"{name}: makes {own}"
    assert apply(full).equals(result), f"{name}: asking twice gives two answers"
    places = result.column(ROW).to_pylist()
    assert places == sorted(places), f"{name}: changes the order of rows"
    for column in (ORIGIN, LINE, ID, ROW):
        kept = [before[place][column] for place in places]
        assert result.column(column).to_pylist() == kept, f"{name}: changes the column {column}"
    moved = _resized(own, [before[place] for place in places])
    assert not moved or getattr(transform, "rewrites_text", False), (
        f"{name}: changes the length of text in {', '.join(moved)}, and rewrites_text is not true"
    )
    alone = pa.concat_tables([apply(full.slice(place, 1)) for place in range(full.num_rows)])
    assert alone.to_pylist() == result.to_pylist(), f"{name}: changes a row in another way when it is alone"
    nothing = apply(full.slice(0, 0))
    assert nothing.num_rows == 0 and nothing.schema == result.schema, f"{name}: no rows must give no rows, same schema"
    if transform.at_serving:
        assert result.num_rows == full.num_rows, f"{name}: acts at serving, and drops rows"
        first = rows.column_names[0]
        served = apply(rows.select([first]))
        assert served.column(first).to_pylist() == result.column(first).to_pylist(), f"{name}: differs at serving"


def _resized(after: Expected, before: Expected) -> list[str]:
    """Returns columns in which a text that is not blank has another length than it had."""
    pairs = [(name, value, old[name]) for new, old in zip(after, before, strict=True) for name, value in new.items()]
    texts = [one for one in pairs if isinstance(one[1], str) and isinstance(one[2], str) and one[2].strip()]
    return sorted({name for name, value, old in texts if len(value) != len(old)})
