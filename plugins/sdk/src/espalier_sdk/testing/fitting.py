"""The check of what learns from rows: a monoid whose state survives JSON. Tasks and fitted transforms share it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from espalier_sdk.choice import State

if TYPE_CHECKING:
    import pyarrow as pa


def check_monoid(name: str, plugin: Any, rows: pa.Table) -> Any:
    """Checks that fitting does not depend on how rows are cut or grouped, and returns the finished state."""
    assert issubclass(plugin.State, State), f"{name}: State must be an espalier_sdk.State"
    assert rows.num_rows >= 3, f"{name}: the kit needs three rows at least"
    whole = _json(plugin.finish(plugin.observe(rows)))
    first, second, third = rows.slice(0, 1), rows.slice(1, 1), rows.slice(2)
    for label, cut in (
        ("left first", _left(plugin, [first, second, third])),
        ("right first", plugin.combine(plugin.observe(first), _left(plugin, [second, third]))),
        ("with an empty part", _left(plugin, [first, rows.slice(0, 0), second, third])),
        ("an empty part first", _left(plugin, [rows.slice(0, 0), first, second, third])),
    ):
        assert _json(plugin.finish(cut)) == whole, f"{name}: combined {label}, fitting gives another state"
    back = plugin.State.model_validate_json(_json(plugin.observe(rows)))
    assert _json(plugin.finish(back)) == whole, f"{name}: what is seen does not survive JSON"
    finished = plugin.finish(plugin.observe(rows))
    assert isinstance(finished, plugin.State), f"{name}: finish() must return {plugin.State.__name__}"
    assert plugin.State.model_validate_json(whole) == finished, f"{name}: the state does not survive JSON"
    return finished


def _left(plugin: Any, parts: list[pa.Table]) -> Any:
    seen = plugin.observe(parts[0])
    for part in parts[1:]:
        seen = plugin.combine(seen, plugin.observe(part))
    return seen


def _json(state: Any) -> str:
    return json.dumps(state.model_dump(mode="json"), allow_nan=False)
