"""Where the predictions of a run's evaluations lie, and what their rows say, for the parts of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef
from espalier_sdk.columns import ID, RESERVED_PREFIX, TARGET

if TYPE_CHECKING:
    import pyarrow as pa


def predictions_of(stages: Sequence[Mapping[str, Any]], store: Store, candidate: str, split: str) -> Path | None:
    """Returns the Parquet file of a candidate's predictions on a split; None where the run has none."""
    wanted = ("evaluate", f"{candidate}-{split}")
    ref = next((one["ref"] for one in stages if (one["stage"], one["name"]) == wanted), None)
    path = store.open_artifact(ArtifactRef.parse(ref)).folder / "predictions.parquet" if ref else None
    return path if path is not None and path.is_file() else None


def texts_of(rows: pa.Table, answered: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns what some answered rows say, by id: their columns of text, but for the one that holds the answer."""
    import pyarrow as pa
    import pyarrow.compute as pc

    asked = pa.array([row[ID] for row in answered], pa.string())
    names = [
        field.name
        for field in rows.schema
        if pa.types.is_string(field.type) and not field.name.startswith(RESERVED_PREFIX)
    ]
    some = rows.filter(pc.is_in(rows.column(ID), value_set=asked)).select([ID, *names]).to_pylist()
    targets = {row[ID]: row[TARGET] for row in answered}
    return {
        row[ID]: " | ".join(row[name] for name in names if row[name] and row[name] != targets[row[ID]]) for row in some
    }
