"""Candidates measured on validation, one of them chosen; test opened for it, the runner-up and the baselines.

Knows nothing about how models are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from espalier_runtime import request as requests
from espalier_runtime.plugins import Plugins
from espalier_runtime.request import StageRequest
from espalier_runtime.specs import Spec
from espalier_runtime.specs.checking import objective_metric_is_greater_better
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef
from espalier_sdk.errors import DataError, SpecError

from espalier_pipeline.choosing import Standing, Verdict, choose
from espalier_pipeline.openings import count_opening
from espalier_pipeline.result import RunResult
from espalier_pipeline.staging import Stages
from espalier_pipeline.worth import against_baseline

_TRAINED = ("train_seconds", "peak_memory_bytes", "trainable_parameters", "parameters", "size_bytes", "steps")


def evaluate(
    result: RunResult,
    stages: Stages,
    plugins: Plugins,
    *,
    datasets: Mapping[str, ArtifactRef],
    models: Mapping[str, ArtifactRef],
) -> None:
    """Adds candidates, baselines, verdict and openings to a result.

    The test split is opened after the choice is recorded, and only where it has rows.
    """
    spec = result.spec
    names = list(models)
    asked = [request(spec, plugins, "validation", dataset=datasets[one], name=one, model=models[one]) for one in names]
    baselines = request(spec, plugins, "validation", dataset=datasets[names[0]])
    *measured, simple = evaluate_all([*asked, baselines], stages)
    result.candidates += [
        _entry(one, models[one], stages.metrics(models[one]), values)
        for one, values in zip(names, measured, strict=True)
    ]
    for name, found in simple.items():
        told = {"name": name, "validation": found["values"], "test": None, "train_seconds": found["train_seconds"]}
        result.baselines.append(told)
    verdict = result.verdict = verdict_of(spec, result.candidates, plugins)
    greater, metric = objective_metric_is_greater_better(spec, plugins), spec.objective.metric
    chosen = next(one for one in result.candidates if one["name"] == verdict.chosen)
    result.against_baseline = against_baseline(chosen, result.baselines, metric, greater_is_better=greater)
    sign = -1.0 if greater else 1.0
    result.candidates.sort(key=lambda one: sign * one["validation"][metric]["value"])  # the best first
    stages.record.update(choice={"chosen": verdict.chosen, "runner_up": verdict.runner_up, "reason": verdict.reason})
    _open_test(result, stages, plugins, datasets=datasets, models=models)


def request(
    spec: Spec,
    plugins: Plugins,
    split: str,
    *,
    dataset: ArtifactRef,
    name: str = "baselines",
    model: ArtifactRef | None = None,
) -> StageRequest:
    """Returns the request for a candidate's evaluation, or without a model for the baselines'."""
    inputs = {"dataset": dataset} | ({"model": model} if model else {})
    return requests.evaluate_request(spec, name=name, split=split, inputs=inputs, plugins=plugins)


def verdict_of(spec: Spec, entries: Sequence[Mapping[str, Any]], plugins: Plugins) -> Verdict:
    """Applies the rule to validation alone; an entry has name, validation, and what the candidate cost."""
    goal = spec.objective
    standings = {}
    for entry in entries:
        if goal.metric not in entry["validation"]:
            raise SpecError(
                f"no metric reported {goal.metric!r} for {entry['name']}",
                field="objective.metric",
                accepted=", ".join(sorted(entry["validation"])),
            )
        measured = entry["validation"][goal.metric]
        standings[entry["name"]] = Standing(measured["value"], measured["error"] or 0.0, entry[goal.cost])
    greater = objective_metric_is_greater_better(spec, plugins)
    return choose(standings, greater_is_better=greater, at_least=goal.at_least, at_most=goal.at_most)


def has_rows(store: Store, dataset: ArtifactRef, split: str) -> bool:
    """Tells whether a split of a dataset has a row."""
    return int(store.manifest(dataset).metrics[f"rows_{split}"]) > 0


def require_validation(store: Store, datasets: Mapping[str, ArtifactRef]) -> None:
    """Raises DataError, before anything is trained, where there is nothing to compare candidates on."""
    for name, dataset in datasets.items():
        if not has_rows(store, dataset, "validation"):
            raise DataError(
                f"the data of candidate {name} has no validation row: candidates are compared on that split",
                code="empty_split",
                field="split.validation",
                remedy="mark some rows `validation`, or end with --only train",
            )


def _open_test(
    result: RunResult,
    stages: Stages,
    plugins: Plugins,
    *,
    datasets: Mapping[str, ArtifactRef],
    models: Mapping[str, ArtifactRef],
) -> None:
    """Measures the chosen candidate, the runner-up and the baselines on test, and counts that it was opened.

    The baselines read the data of the first candidate, as on validation; where neither of the pair does, its test
    split stays closed.
    """
    verdict = result.verdict
    assert verdict is not None, "the choice comes first"
    if not has_rows(stages.store, datasets[verdict.chosen], "test"):
        stages.view.note("there is no test split: the objective is measured on validation, which also chose")
        return
    pair = [one for one in result.candidates if one["name"] in (verdict.chosen, verdict.runner_up)]
    shown = [one for one in pair if has_rows(stages.store, datasets[one["name"]], "test")]
    asked = [
        request(result.spec, plugins, "test", dataset=datasets[name], name=name, model=models[name])
        for name in (one["name"] for one in shown)
    ]
    data = datasets[next(iter(models))]
    if data in (datasets[one["name"]] for one in shown):
        asked.append(request(result.spec, plugins, "test", dataset=data))
    measured = evaluate_all(asked, stages)
    for entry, values in zip(shown, measured, strict=False):  # the baselines come last, all in one evaluation
        entry["test"] = values["values"]
    for entry in result.baselines if len(measured) > len(shown) else ():
        entry["test"] = measured[-1][entry["name"]]["values"]
    result.openings = count_opening(
        stages.places.home,
        dataset=str(datasets[verdict.chosen]),
        models=[entry["model"] for entry in shown],
        run=result.record.id,
    )


def evaluate_all(asked: Sequence[StageRequest], stages: Stages) -> list[dict[str, Any]]:
    """Returns the metrics of evaluations; those not made yet are made by one process, which warms up once."""
    missing = [one for one in asked if stages.store.find_request(one.digest()) is None]
    made = _make(missing, stages) if missing else {}
    values = []
    for one in asked:
        ref, cached = made[one.digest()] if one.digest() in made else (stages.store.find_request(one.digest()), True)
        assert ref is not None, "what is not missing was found"
        manifest = stages.store.manifest(ref)
        seconds = 0.0 if cached else float(manifest.provenance["seconds"])
        stages.note("evaluate", one.name, ref, seconds, cached=cached)
        values.append(dict(manifest.metrics))
    return values


def _make(missing: Sequence[StageRequest], stages: Stages) -> dict[str, tuple[ArtifactRef, bool]]:
    """Has evaluations made; returns each by digest, and whether somebody else had made it meanwhile."""
    first, *others = missing
    assert first.split is not None, "an evaluation has a split"
    arguments = [*stages.common("evaluate"), "--split", first.split]
    arguments += ["--candidate", first.candidate] if first.candidate else []
    for text in _inputs(first):
        arguments += ["--input", text]
    for other in others:
        said = {"candidate": other.candidate, "split": other.split, "input": _inputs(other)}
        arguments += ["--also", json.dumps(said)]
    stages.view.stage_began("evaluate", f"{len(missing)} on {first.split}" if others else first.name)
    document = stages.attempt(first, arguments, with_ray=any("model" in one.inputs for one in missing))
    results = document.get("results", [document])
    made = [(ArtifactRef.parse(result["ref"]), bool(result["cached"])) for result in results]
    return {one.digest(): found for one, found in zip(missing, made, strict=True)}


def _inputs(one: StageRequest) -> list[str]:
    return [f"{role}={ref}" for role, ref in one.inputs.items()]


def _entry(name: str, model: ArtifactRef, trained: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "model": str(model),
        "validation": measured["values"],
        "validation_rows": measured["rows"],
        "test": None,
        **{key: trained[key] for key in _TRAINED},
    }
