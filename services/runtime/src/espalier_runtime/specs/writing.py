"""A loaded spec as a file again: paths absolute, overrides and defaults in it, secrets still by name."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML

from espalier_runtime.disk import store_errors
from espalier_runtime.specs.models import Spec


def write_spec(spec: Spec, path: Path) -> None:
    """Writes what `load_spec` reads to the same spec, wherever it lies; DataError where the disk does not take it."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.allow_unicode = True
    with store_errors(str(path)), path.open("w", encoding="utf-8") as file:
        writer.dump(spec.model_dump(mode="json", by_alias=True), file)
