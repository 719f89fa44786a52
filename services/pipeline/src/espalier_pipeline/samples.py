"""What the chosen model wrote on validation: question, wanted answer and answer of a few rows, for the report.

Knows no task: rows that ask nothing have nothing to show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from espalier_sdk.columns import PREDICTION, QUESTION, TARGET

from espalier_pipeline.predictions import predictions_of

if TYPE_CHECKING:
    from espalier_runtime.store import Store

_SHOWN = 8


def samples(stages: Sequence[Mapping[str, Any]], store: Store, candidate: str) -> list[dict[str, str]]:
    """Returns `question`, `target` and `answer` of rows spread evenly over a candidate's validation predictions."""
    import pyarrow.parquet as pq

    path = predictions_of(stages, store, candidate, "validation")
    if path is None or QUESTION not in pq.read_schema(path).names:
        return []
    table = pq.read_table(path, columns=[QUESTION, TARGET, PREDICTION])
    count = min(_SHOWN, table.num_rows)
    rows = table.take([place * table.num_rows // count for place in range(count)]).to_pylist()
    return [{"question": row[QUESTION], "target": row[TARGET] or "", "answer": row[PREDICTION] or ""} for row in rows]
