"""The stage: predictions by Ray Data batch inference, metrics, and a bootstrap interval for each value."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from espalier_runtime.job import Job, Stage
from espalier_runtime.opening import OpenedModel, open_model
from espalier_runtime.plugins import Plugins
from espalier_runtime.ray_session import configure_ray_data, own_errors, require_same_plugins
from espalier_runtime.store import Store
from espalier_runtime.tables import read_parts
from espalier_sdk import ArtifactRef, Choice
from espalier_sdk.artifacts import PluginUse
from espalier_sdk.columns import ID
from espalier_sdk.errors import DataError

from espalier_evaluation.bootstrap import Measured, measure

_PLACE = "espalier_place"
_ROWS_PER_TASK = 4096


def run(job: Job) -> dict[str, Any]:
    """Writes `metrics.json` and `predictions.parquet`; for baselines, one pair per baseline in a folder."""
    split = job.request.what["split"]
    dataset = job.inputs["dataset"].folder
    rows = read_parts(dataset / split)
    if rows.num_rows == 0:
        raise DataError(f"the {split} split is empty", file=str(dataset / split), remedy="change data.split")
    if "model" in job.inputs:
        job.session.start(job.request.plugins)
        predictions = predict_on_ray(job, rows)
        return _write(job, predictions, job.out)
    from espalier_evaluation.baselines import baselines

    metrics: dict[str, Any] = {}
    for name, started, predictions in baselines(job, read_parts(dataset / "train"), rows):
        seconds = round(time.perf_counter() - started, 3)  # before the bootstrap, which takes longer than the fit
        folder = job.out / name
        folder.mkdir()
        metrics[name] = _write(job, predictions, folder) | {"train_seconds": seconds}
    return metrics


def predict_on_ray(job: Job, rows: pa.Table) -> pa.Table:
    """Returns one prediction per row in order; a worker process opens the model once and keeps it."""
    import ray.data

    configure_ray_data()
    threads = job.session.cpus()
    asked = {
        "store": job.workplace.store.uri,
        "ref": str(job.inputs["model"].ref),
        "engine": job.request.what["engine"],
        "threads": threads,
        "plugins": [use.model_dump() for use in job.request.plugins],
    }
    placed = rows.append_column(_PLACE, pa.array(range(rows.num_rows), pa.int64()))
    blocks = [placed.slice(start, _ROWS_PER_TASK) for start in range(0, rows.num_rows, _ROWS_PER_TASK)]
    answered = ray.data.from_arrow(blocks).map_batches(
        _predict,
        fn_kwargs={"asked": json.dumps(asked)},
        batch_format="pyarrow",
        batch_size=_ROWS_PER_TASK,
        zero_copy_batch=True,
        num_cpus=threads,  # one task at a time on a node: torch uses all of its CPUs
    )
    tables, done = [], 0
    with own_errors():
        for batch in answered.iter_batches(batch_format="pyarrow", batch_size=None):
            tables.append(batch)
            done += batch.num_rows
            job.progress.update(done, rows.num_rows)
    table = pa.concat_tables(tables).sort_by(_PLACE).drop_columns([_PLACE])
    if table.num_rows != rows.num_rows:
        raise DataError(f"{rows.num_rows} rows were asked, {table.num_rows} answered", field="evaluate.engine")
    return table


def _predict(rows: pa.Table, asked: str) -> pa.Table:
    """Answers one block in a worker process; the rows of a dataset are transformed already."""
    predictions = _opened(asked).predict(rows, transformed=True)
    for name in (ID, _PLACE):
        predictions = predictions.append_column(name, rows.column(name))
    return predictions


@lru_cache(maxsize=1)
def _opened(asked: str) -> OpenedModel:
    import torch

    told = json.loads(asked)
    torch.set_num_threads(told["threads"])
    require_same_plugins([PluginUse.model_validate(use) for use in told["plugins"]])
    engine = Choice.model_validate(told["engine"])
    return open_model(Store.open(told["store"]), ArtifactRef.parse(told["ref"]), Plugins(), engine)


def _write(job: Job, predictions: pa.Table, folder: Path) -> dict[str, Any]:
    what = job.request.what
    metrics = {choice["name"]: job.plugins.load("espalier.metrics", Choice(**choice)) for choice in what["metrics"]}
    measured = measure(
        predictions, metrics, resamples=what["resamples"], confidence=what["confidence"], seed=what["seed"]
    )
    pq.write_table(predictions.combine_chunks(), folder / "predictions.parquet", compression="zstd")
    document = {"rows": predictions.num_rows, "values": _json(measured)}
    (folder / "metrics.json").write_text(json.dumps(document, indent=1, sort_keys=True), encoding="utf-8")
    return document


def _json(measured: Mapping[str, Measured]) -> dict[str, Any]:
    return {
        name: {"value": one.value, "low": one.low, "high": one.high, "error": one.error}
        for name, one in measured.items()
    }


STAGE = Stage(name="evaluate", run=run)
