"""The rows of validation that a model answered worst, by the first metric that has a figure for each row.

Knows no task and no metric by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from espalier_sdk import ArtifactRef
from espalier_sdk.columns import ID, PREDICTION, TARGET

from espalier_pipeline.predictions import predictions_of, texts_of

if TYPE_CHECKING:
    from espalier_runtime.store import Store
    from espalier_sdk.protocols import Metric

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Worst:
    """The metric by which rows were compared, and the rows: `text`, `target`, `prediction` and `figure`, as text."""

    metric: str
    rows: tuple[dict[str, str], ...]


def worst(
    stages: Sequence[Mapping[str, Any]], store: Store, candidate: str, dataset: str, *, metrics: Mapping[str, Metric]
) -> Worst | None:
    """Returns them for a candidate's predictions on validation, the worst first; None where no metric tells rows apart.

    Rows whose answer is the target, or one of several, are left out, and so are those that lack one of both.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from espalier_runtime.tables import read_parts

    path = predictions_of(stages, store, candidate, "validation")
    if path is None or not {ID, TARGET, PREDICTION} <= set(pq.read_schema(path).names):
        return None
    table = pq.read_table(path)
    table = table.filter(pc.and_(pc.is_valid(table.column(TARGET)), pc.is_valid(table.column(PREDICTION))))
    if not table.num_rows:
        return None
    for name, metric in metrics.items():
        if (figures := metric.rows(table)) is None:
            continue
        rows = zip(figures, table.select([ID, TARGET, PREDICTION]).to_pylist(), strict=True)
        wrong = [(figure, row) for figure, row in rows if not _met(row[TARGET], row[PREDICTION])]
        wrong.sort(key=lambda one: one[0], reverse=not metric.greater_is_better)
        shown = wrong[:_SHOWN]
        documents = read_parts(store.open_artifact(ArtifactRef.parse(dataset)).folder / "validation")
        texts = texts_of(documents, [row for _, row in shown])
        return Worst(name, tuple(_told(row, figure, texts.get(row[ID], "")) for figure, row in shown))
    return None


def _met(target: Any, prediction: Any) -> bool:
    """Tells whether a row is right: where a text answers a list, by any of it, or by none where it is empty."""
    if isinstance(target, list) and isinstance(prediction, str):
        return prediction in (target or [""])
    return bool(target == prediction)


def _told(row: Mapping[str, Any], figure: float, text: str) -> dict[str, str]:
    said = {"target": row[TARGET], "prediction": row[PREDICTION], "figure": figure}
    return {"text": text, **{name: _as_text(value) for name, value in said.items()}}


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
