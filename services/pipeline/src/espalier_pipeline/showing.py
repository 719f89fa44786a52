"""An artifact's record for a reader: what it was made of, what was asked for and what was measured, a line each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from espalier_pipeline.tables import columns, interval, size

if TYPE_CHECKING:
    from espalier_sdk.artifacts import Manifest

_LINES = 40  # of what was measured: a confusion matrix of many classes has thousands
_MEASURED = {"value", "low", "high", "error"}


def render_manifest(manifest: Manifest) -> str:
    """Returns an artifact's record; `show --json` has all of it."""
    lines = [str(manifest.ref())]
    lines += [f"made of    {ref}" for ref in manifest.inputs]
    lines += [f"plugin     {use.name} ({use.distribution} {use.version}, {use.sha256[:8]})" for use in manifest.plugins]
    lines += [f"file       {entry.path}  {size(entry.size_bytes)}" for entry in manifest.files[:20]]
    left = manifest.file_list.count if manifest.file_list else max(0, len(manifest.files) - 20)
    if left:
        lines.append(f"{'and' if manifest.files else 'files':<10} {left}{' more' if manifest.files else ''}")
    lines += _block("asked for", list(facts(manifest.what)))
    lines += _block("measured", list(facts(manifest.metrics)))
    lines.append(
        f"made in    {manifest.provenance.get('seconds', 0):.1f} s by attempt {manifest.provenance['attempt']}"
    )
    return "\n".join(lines)


def facts(document: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yields the path and the text of each value of a document; those that are null or empty are left out."""
    for name, value in document.items():
        path = f"{above}{name}"
        if value is None or value in ({}, []):
            continue
        if isinstance(value, Mapping) and set(value) == _MEASURED:
            yield path, interval(value)
        elif isinstance(value, Mapping) and set(value) == {"name", "config"}:  # a plugin and its options
            yield path, str(value["name"])
            yield from facts(value["config"], f"{path}.")
        elif isinstance(value, Mapping):
            yield from facts(value, f"{path}.")
        elif name.endswith("_bytes") and isinstance(value, int | float):
            yield path, size(value)
        else:
            yield path, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):  # of plugins, those without options by their name
        bare = [one["name"] if isinstance(one, Mapping) and not one.get("config", True) else one for one in value]
        return ", ".join(one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in bare)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _block(title: str, found: list[tuple[str, str]]) -> list[str]:
    if not found:
        return []
    rows = columns([(path, text) for path, text in found[:_LINES]]).splitlines()
    lines = [f"{title if place == 0 else '':<10} {row}" for place, row in enumerate(rows)]
    left = len(found) - _LINES
    return [*lines, f"{'':<10} and {left} more: --json"] if left > 0 else lines
