"""Tracking: MLflow mirrors what manifests say, one MLflow run per artifact; it is never read for a decision.

`python -m espalier_runtime.tracking --uri U --store S --experiment E REF...` does it in a process of its own, because
MLflow's imports cost seconds that no stage should wait for.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from espalier_sdk.artifacts import Manifest
from espalier_sdk.errors import ClusterError, EspalierError

from espalier_runtime.main import print_errors
from espalier_runtime.store import Store

ARTIFACT_TAG = "espalier.artifact"


def track(uri: str, *, experiment: str, store: Store, refs: Sequence[str]) -> int:
    """Logs artifacts that are not logged yet and returns how many; ClusterError where MLflow does not take them."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        client = MlflowClient(uri, registry_uri=uri)
        found = client.get_experiment_by_name(experiment)
        identity = found.experiment_id if found else client.create_experiment(experiment)
        logged = 0
        for text in refs:
            manifest = store.manifest(store.resolve(text))
            if not client.search_runs([identity], f"tags.`{ARTIFACT_TAG}` = '{manifest.ref()}'", max_results=1):
                _log(client, identity, manifest, store)
                logged += 1
    except (MlflowException, OSError) as error:
        raise ClusterError(
            f"MLflow at {uri} cannot be used: {' '.join(str(error).split())[:300]}",
            code="tracking",
            given=uri,
            remedy="check MLFLOW_TRACKING_URI; the run itself is complete without it",
        ) from error
    return logged


def _log(client: Any, experiment: str, manifest: Manifest, store: Store) -> None:
    from mlflow.entities import Metric, Param, RunTag

    ref, moment = manifest.ref(), int(time.time() * 1000)
    run = client.create_run(experiment, run_name=f"{manifest.kind} {manifest.name}")
    tags = [RunTag(ARTIFACT_TAG, str(ref)), RunTag("espalier.kind", manifest.kind)]
    tags += [RunTag(f"espalier.input.{other.kind}", str(other)) for other in manifest.inputs]
    metrics = [Metric(_key(name), value, moment, 0) for name, value in _numbers(manifest.metrics)]
    for entry in _history(store, manifest):
        step = int(entry.get("step", 0))
        metrics += [Metric(f"train/{name}", value, moment, step) for name, value in _numbers(entry) if name != "step"]
    params = [Param(name, str(value)[:500]) for name, value in _flat(manifest.what)]
    _send(client, run.info.run_id, metrics, params, tags)
    for trial in _trials(store, manifest):
        _log_trial(client, experiment, run.info.run_id, trial)


def _log_trial(client: Any, experiment: str, study: str, trial: Mapping[str, Any]) -> None:
    """Logs one trial of a study below it, as MLflow nests runs."""
    from mlflow.entities import Metric, Param, RunTag

    moment = int(time.time() * 1000)
    run = client.create_run(experiment, run_name=f"trial {trial['number']}", tags={"mlflow.parentRunId": study})
    metrics = [Metric("validation_loss", loss, moment, place) for place, loss in enumerate(trial["losses"], 1)]
    metrics += [Metric("score", trial["score"], moment, 0)] if trial["score"] is not None else []
    params = [Param(path, str(value)[:500]) for path, value in trial["values"].items()]
    tags = [RunTag("espalier.trial", trial["state"]), *(RunTag("espalier.model", ref) for ref in trial["models"][:1])]
    _send(client, run.info.run_id, metrics, params, tags)


def _trials(store: Store, manifest: Manifest) -> list[dict[str, Any]]:
    if manifest.kind != "study":
        return []
    folder = store.open_artifact(manifest.ref()).folder
    trials: list[dict[str, Any]] = json.loads((folder / "trials.json").read_text(encoding="utf-8"))
    return trials


def _send(client: Any, run: str, metrics: list[Any], params: list[Any], tags: list[Any]) -> None:
    for start in range(0, max(len(metrics), 1), 900):  # MLflow takes 1,000 metrics and 100 params in a batch
        client.log_batch(run, metrics=metrics[start : start + 900])
    for start in range(0, len(params), 90):
        client.log_batch(run, params=params[start : start + 90])
    client.log_batch(run, tags=tags)
    client.set_terminated(run)


def _history(store: Store, manifest: Manifest) -> list[dict[str, Any]]:
    folder = store.beside(manifest.ref())
    path = folder / "history.json" if folder else None
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else []
    return entries


def _numbers(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _key(name: str) -> str:
    """Returns a name that MLflow accepts: labels may hold any character."""
    return "".join(letter if letter.isalnum() or letter in "/_-. " else "_" for letter in name)[:250]


def main() -> int:
    """Logs the given artifacts, prints how many as JSON, and returns the exit code."""
    parser = argparse.ArgumentParser(description="Mirrors artifacts in MLflow.")
    parser.add_argument("--uri", required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--experiment", required=True)
    parser.add_argument("refs", nargs="+")
    arguments = parser.parse_args()
    try:
        store = Store.open(arguments.store)
        logged = track(arguments.uri, experiment=arguments.experiment, store=store, refs=arguments.refs)
    except EspalierError as error:
        print_errors(error, as_json=True)
        return error.exit_code
    print(json.dumps({"logged": logged}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
