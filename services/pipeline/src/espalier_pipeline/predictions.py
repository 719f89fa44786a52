"""Where the predictions of a run's evaluations lie, for the parts of the report that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef


def predictions_of(stages: Sequence[Mapping[str, Any]], store: Store, candidate: str, split: str) -> Path | None:
    """Returns the Parquet file of a candidate's predictions on a split; None where the run has none."""
    wanted = ("evaluate", f"{candidate}-{split}")
    ref = next((one["ref"] for one in stages if (one["stage"], one["name"]) == wanted), None)
    path = store.open_artifact(ArtifactRef.parse(ref)).folder / "predictions.parquet" if ref else None
    return path if path is not None and path.is_file() else None
