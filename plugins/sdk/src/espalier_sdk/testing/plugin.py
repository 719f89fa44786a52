"""The kit for every plugin: its entry point, its light import, its signatures, its config.

Each further kit in this package checks one protocol; all of them raise AssertionError with what was wrong.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from typing import Any

import pytest
from pydantic import ValidationError

from espalier_sdk.groups import GROUPS, mismatches

HEAVY = ("torch", "transformers", "ray", "pyarrow", "mlflow", "peft", "sklearn", "presidio_analyzer")


def check_plugin(group: str, name: str, *, heavy: tuple[str, ...] = HEAVY) -> type[Any]:
    """Checks what every plugin promises and returns its class.

    Its entry point is found once, importing it loads nothing of `heavy`, its members and signatures are
    those of the protocol, and its `Config` is frozen, explains each field and refuses an unknown key.
    """
    found = [point for point in entry_points(group=group) if point.name == name]
    assert len(found) == 1, f"{group}: {name} is declared {len(found)} times in this environment, must be once"
    _check_light_import(found[0].module, heavy)
    plugin: type[Any] = found[0].load()
    assert not (wrong := mismatches(plugin, GROUPS[group])), f"{group}: {name}: {'; '.join(wrong)}"
    config = plugin.Config
    assert config.model_config.get("frozen"), f"{name}: Config must be frozen"
    silent = [key for key, field in config.model_fields.items() if not field.description]
    assert not silent, f"{name}: Config fields without a description: {', '.join(silent)}"
    with pytest.raises(ValidationError) as refused:
        config.model_validate({"no_such_option_at_all": 1})
    assert any(error["type"] == "extra_forbidden" for error in refused.value.errors())
    return plugin


def _check_light_import(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*[name for name in {heavy!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"import {module} failed:\n{run.stderr}"
    assert not run.stdout.strip(), f"import {module} loads {run.stdout.strip()}: import these where they are used"
