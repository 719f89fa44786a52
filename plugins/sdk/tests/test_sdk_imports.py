"""What importing the sdk costs, and that its lazy names are all there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import espalier_sdk
import pytest

HEAVY = ("torch", "transformers", "ray", "pyarrow", "numpy", "mlflow")
LIMIT_SECONDS = 0.15


def _fresh(code: str, cache: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    options = ["-X", f"pycache_prefix={cache}"] if cache else ["-B"]
    run = subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    return run.stdout.strip()


@pytest.mark.parametrize(
    "module", ["espalier_sdk", "espalier_sdk.groups", "espalier_sdk.protocols", "espalier_sdk.testing"]
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, {module}; from espalier_sdk import *; print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert _fresh(code) == "[]"


def test_import_takes_less_than_the_limit(tmp_path: Path) -> None:
    code = "import time; start = time.perf_counter(); import espalier_sdk; print(time.perf_counter() - start)"
    _fresh(code, tmp_path)  # writes the bytecode, as an installer does
    assert min(float(_fresh(code, tmp_path)) for _ in range(3)) < LIMIT_SECONDS


def test_every_public_name_is_there_and_no_other() -> None:
    for name in espalier_sdk.__all__:
        assert getattr(espalier_sdk, name) is not None
    assert dir(espalier_sdk) == sorted(espalier_sdk.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        espalier_sdk.Nothing  # noqa: B018
