"""The espalier command: the order of stages, and where they run.

The same functions serve notebooks: `from espalier_pipeline import check, plan, run, predict`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espalier_pipeline.driver import run
    from espalier_pipeline.forecast import plan
    from espalier_pipeline.prediction import predict
    from espalier_pipeline.reading import check

__all__ = ["check", "plan", "predict", "run"]

_HOMES = {"check": "reading", "plan": "forecast", "predict": "prediction", "run": "driver"}


def __getattr__(name: str) -> Any:
    # Late, so that `espalier --help` does not pay for pyarrow and the store.
    if name not in _HOMES:
        raise AttributeError(name)
    import importlib

    return getattr(importlib.import_module(f"espalier_pipeline.{_HOMES[name]}"), name)
