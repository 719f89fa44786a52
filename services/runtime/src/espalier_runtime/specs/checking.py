"""Checks a spec against the plugins that are installed: names, configs, and what does not go together.

Loads only plugins whose import is light; opens no data and imports neither torch nor Ray.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from espalier_sdk.errors import EspalierError, PluginError, Problem, SpecError
from espalier_sdk.groups import did_you_mean
from espalier_sdk.model import Head, Placement
from espalier_sdk.planning import compose
from pydantic import ValidationError

from espalier_runtime.plugins import Plugins
from espalier_runtime.specs.document import Location, SpecDocument
from espalier_runtime.specs.models import Candidate, Spec
from espalier_runtime.specs.reading import choices_of, validation_problems


def check_spec(spec: Spec, document: SpecDocument, plugins: Plugins) -> dict[Location, Any]:
    """Returns the plugins of a spec by location, or raises all that is wrong with them at once.

    Raises PluginError where only plugins are at fault, else SpecError.
    """
    loaded: dict[Location, Any] = {}
    plugin_problems: list[Problem] = []
    spec_problems: list[Problem] = []
    for location, group, choice in choices_of(spec):
        try:
            plugin = plugins.load_class(group, choice.name)
        except PluginError as error:
            plugin_problems += [_placed(problem, location, document) for problem in error.problems]
            continue
        at = (*location, "config")
        try:
            loaded[location] = plugin(plugin.Config.model_validate(choice.config))
        except ValidationError as error:
            spec_problems += validation_problems(error, document, model=plugin.Config, prefix=at)
        except EspalierError as error:
            spec_problems += [_placed(problem, at, document) for problem in error.problems]
    for name, candidate in spec.candidates.items():
        spec_problems += _conflicts(name, candidate, loaded, document)
    spec_problems += _metric_problems(spec, loaded, document)
    if plugin_problems and not spec_problems:
        raise PluginError(problems=tuple(plugin_problems))
    if spec_problems:
        raise SpecError(problems=tuple(spec_problems + plugin_problems))
    return loaded


def objective_metric_is_greater_better(spec: Spec, plugins: Plugins) -> bool:
    """Tells the direction of the objective's metric."""
    for choice in spec.evaluate.metrics:
        metric = plugins.load_class("espalier.metrics", choice.name)
        if spec.objective.metric in metric.reports:
            return bool(metric.greater_is_better)
    raise SpecError(f"no metric reports {spec.objective.metric!r}", field="objective.metric")


def _conflicts(
    name: str, candidate: Candidate, loaded: dict[Location, Any], document: SpecDocument
) -> Iterator[Problem]:
    at: Location = ("candidates", name)
    task = loaded.get((*at, "task"), loaded.get(("objective", "task")))
    strategy, learner = loaded.get((*at, "strategy")), loaded.get((*at, "learner"))
    peft = loaded.get((*at, "peft"))
    if task is None or strategy is None or learner is None or (candidate.peft and peft is None):
        return  # what is missing is reported already
    where = candidate.where
    for problem in compose(
        strategy=strategy,
        peft=peft,
        learner=learner,
        head=Head(kind=task.head_kind),
        controls=[
            loaded[(*at, "controls", i)] for i in range(len(candidate.controls)) if (*at, "controls", i) in loaded
        ],
        placement=Placement(zero_stage=where.zero_stage, workers=where.workers, dtype=candidate.training.dtype),
        has_base=candidate.base is not None,
    ):
        yield document.problem(at, problem, code="conflict")


def _metric_problems(spec: Spec, loaded: dict[Location, Any], document: SpecDocument) -> Iterator[Problem]:
    metrics = [metric for location, metric in loaded.items() if location[:2] == ("evaluate", "metrics")]
    known = sorted({name for metric in metrics for name in metric.reports})
    if len(metrics) == len(spec.evaluate.metrics) and spec.objective.metric not in known:
        yield document.problem(
            ("objective", "metric"),
            f"no metric of `evaluate.metrics` reports {spec.objective.metric!r}",
            code="unknown_metric",
            given=spec.objective.metric,
            accepted=", ".join(known),
            remedy=did_you_mean(spec.objective.metric, known),
        )


def _placed(problem: Problem, location: Location, document: SpecDocument) -> Problem:
    inner = tuple((problem.field or "").removeprefix("config.").split(".")) if problem.field else ()
    placed = document.problem((*location, *inner), problem.message, code=problem.code)
    return Problem(
        code=problem.code,
        message=problem.message,
        file=placed.file,
        line=placed.line,
        column=placed.column,
        field=placed.field,
        given=problem.given,
        accepted=problem.accepted,
        remedy=problem.remedy,
    )
