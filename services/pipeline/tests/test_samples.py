"""What a model wrote, for the report."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from espalier_pipeline.samples import samples
from espalier_runtime.store import Store


def evaluated(place: Path, table: pa.Table) -> tuple[list[dict[str, str]], Store]:
    store = Store.open(str(place))
    attempt = store.begin("0" * 64)
    pq.write_table(table, attempt.folder / "predictions.parquet")
    ref = attempt.publish(kind="evaluation", name="tuned-validation", what={}).ref()
    return [{"stage": "evaluate", "name": "tuned-validation", "ref": str(ref)}], store


@pytest.mark.parametrize(("rows", "shown"), [(3, [0, 1, 2]), (80, [0, 10, 20, 30, 40, 50, 60, 70])])
def test_rows_are_spread_evenly_over_what_was_asked(tmp_path: Path, rows: int, shown: list[int]) -> None:
    table = pa.table(
        {
            "espalier_question": [f"q{place}" for place in range(rows)],
            "target": ["wanted"] * rows,
            "prediction": pa.array([None, *["written"] * (rows - 1)], pa.string()),
        }
    )
    found = samples(*evaluated(tmp_path, table), "tuned")
    assert [one["question"] for one in found] == [f"q{place}" for place in shown]
    assert [one["answer"] for one in found] == ["", *["written"] * (len(shown) - 1)]


def test_a_task_that_asks_nothing_has_nothing_to_show(tmp_path: Path) -> None:
    stages, store = evaluated(tmp_path, pa.table({"target": ["a"], "prediction": ["a"]}))
    assert samples(stages, store, "tuned") == []
    assert samples(stages, store, "another") == []
