"""The rows that were answered worst: by the first metric that has a figure for each, in its own direction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from espalier_pipeline.worst import Worst, worst
from espalier_runtime.plugins import Plugins
from espalier_runtime.store import Store
from espalier_runtime.tables import write_parts
from espalier_sdk import Choice


def found(place: Path, rows: list[dict[str, Any]], *metrics: str) -> Worst | None:
    """Publishes rows of a dataset with their answers, and returns the worst by some metrics."""
    store, ids = Store.open(str(place)), [f"{number:032x}" for number in range(len(rows))]
    attempt = store.begin("1" * 64)
    asked = {"espalier_id": ids, "message": [row["message"] for row in rows]}
    write_parts([pa.table(asked)], attempt.folder / "validation")
    dataset = attempt.publish(kind="dataset", name="tickets", what={}).ref()
    attempt = store.begin("2" * 64)
    answers = {name: [row[name] for row in rows] for name in ("target", "prediction")}
    pq.write_table(pa.table({"espalier_id": ids, **answers}), attempt.folder / "predictions.parquet")
    ref = attempt.publish(kind="evaluation", name="full-validation", what={}).ref()
    stages = [{"stage": "evaluate", "name": "full-validation", "ref": str(ref)}]
    plugins = Plugins()
    loaded = {name: plugins.load("espalier.metrics", Choice(name=name)) for name in metrics}
    return worst(stages, store, "full", str(dataset), metrics=loaded)


def test_numbers_that_are_furthest_off_come_first_and_those_met_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"message": "near", "target": 2.0, "prediction": 2.5},
        {"message": "met", "target": 1.0, "prediction": 1.0},
        {"message": "far", "target": 5.0, "prediction": 1.0},
        {"message": "not known", "target": None, "prediction": 9.0},
    ]
    told = found(tmp_path, rows, "rmse", "mae")
    assert told is not None
    assert told.metric == "mae"  # the root of a mean has no figure for a row
    assert [one["text"] for one in told.rows] == ["far", "near"]
    assert told.rows[0] == {"text": "far", "target": "5", "prediction": "1", "figure": "4"}


@pytest.mark.parametrize(
    ("metric", "targets"),
    [("token-f1", ["a b", "c d"]), ("squad", [["a b", "a"], ["c d"]])],
)
def test_what_was_written_stands_beside_what_was_right(tmp_path: Path, metric: str, targets: list[Any]) -> None:
    rows = [
        {"message": "half", "target": targets[0], "prediction": "b"},
        {"message": "wrong", "target": targets[1], "prediction": "x"},
    ]
    told = found(tmp_path, rows, metric)
    assert told is not None
    assert [one["text"] for one in told.rows] == ["wrong", "half"]
    assert (told.rows[0]["target"], told.rows[0]["prediction"]) == ("c d", "x")
    assert told.rows[0]["figure"] == "0"


def test_an_answer_is_right_by_any_of_several_and_an_empty_one_where_there_is_none(tmp_path: Path) -> None:
    rows = [
        {"message": "second", "target": ["a b", "a"], "prediction": "a"},
        {"message": "unanswerable", "target": [], "prediction": ""},
        {"message": "made up", "target": [], "prediction": "x"},
    ]
    told = found(tmp_path, rows, "squad")
    assert told is not None
    assert [one["text"] for one in told.rows] == ["made up"]


def test_without_a_metric_of_rows_nothing_is_told(tmp_path: Path) -> None:
    assert found(tmp_path, [{"message": "a", "target": 1.0, "prediction": 2.0}], "rmse") is None
