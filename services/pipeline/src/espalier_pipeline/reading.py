"""Reading and checking a spec, as `check` and notebooks do it: no torch, no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from espalier_runtime.plugins import Plugins
from espalier_runtime.specs import Spec, load_spec
from espalier_runtime.specs.checking import check_spec


def check(path: Path | str, *, overrides: Sequence[str] = ()) -> Spec:
    """Returns a spec in which nothing is wrong; raises SpecError or PluginError with all that is."""
    spec, document = load_spec(Path(path), overrides=overrides)
    check_spec(spec, document, Plugins())
    return spec
