"""Checks a spec against the plugins that are installed: names, configs, and what does not go together.

Loads only plugins whose import is light; opens no data and imports neither torch nor Ray.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from espalier_sdk.choice import Choice
from espalier_sdk.errors import DataError, EspalierError, PluginError, Problem, SpecError
from espalier_sdk.groups import did_you_mean
from espalier_sdk.model import Head, HeadKind, Placement
from espalier_sdk.planning import built_head, compose, quantisation
from pydantic import ValidationError

from espalier_runtime.arithmetic import dtype_of
from espalier_runtime.plugins import Plugins, named_columns
from espalier_runtime.secrets import with_secrets, without_secrets
from espalier_runtime.specs.document import Location, SpecDocument
from espalier_runtime.specs.feasibility import (
    answer_problems,
    auxiliary_head_problems,
    candidate_problems,
    config_problems,
    merging_problems,
)
from espalier_runtime.specs.models import Candidate, Spec
from espalier_runtime.specs.reading import choices_of, validation_problems
from espalier_runtime.specs.salvaging import NOWHERE, Broken
from espalier_runtime.specs.searching import tune_problems


def check_spec(spec: Spec, document: SpecDocument, plugins: Plugins) -> dict[Location, Any]:
    """Returns the plugins of a spec by location, or raises all that is wrong with them at once.

    Raises PluginError where only plugins are at fault, else SpecError.
    """
    found = examine(spec, document, plugins, NOWHERE)
    found.refuse()
    return found.loaded


@dataclass
class Found:
    """What a check has found so far: plugins and their configs by location, problems by whose fault they are."""

    loaded: dict[Location, Any] = field(default_factory=dict)
    configs: dict[Location, Any] = field(default_factory=dict)
    spec: list[Problem] = field(default_factory=list)
    plugin: list[Problem] = field(default_factory=list)
    data: list[Problem] = field(default_factory=list)

    def refuse(self) -> None:
        """Raises all problems in the order of the file, as the error of the first of spec, plugins and data."""
        kinds = ((SpecError, self.spec), (PluginError, self.plugin), (DataError, self.data))
        told = tuple(
            sorted((one for _, some in kinds for one in some), key=lambda one: (one.line or 0, one.column or 0))
        )
        for kind, some in kinds:
            if some:
                raise kind(problems=told)


def examine(spec: Spec, document: SpecDocument, plugins: Plugins, broken: Broken) -> Found:
    """Returns the plugins of a spec and what is wrong with them; what needs a broken part of the spec is left out."""
    found = Found()
    for location, group, choice in choices_of(spec):
        if not broken.at(location):
            _load(location, group, choice, document, plugins, found)
    whole = [name for name in spec.candidates if not broken.within(("candidates", name))]
    for name in whole:
        _check_candidate(spec, name, document, plugins, found)
    kinds = {name: kind for name, kind in _kinds(spec, found.loaded).items() if name in whole}
    found.spec += answer_problems(spec, kinds, document)
    if not (found.spec or found.plugin or broken.places):
        for name in spec.candidates:
            found.spec += tune_problems(spec, name, document, partial(_tried, name, document, plugins, found))
    if not (broken.within(("evaluate",)) or broken.at(("objective", "metric"))):
        found.spec += _metric_problems(spec, found.loaded, document)
    if not broken.at(("serve",)):
        found.spec += _serve_problems(spec, found.loaded, document)
    return found


def _load(
    location: Location, group: str, choice: Choice, document: SpecDocument, plugins: Plugins, found: Found
) -> None:
    """Adds one plugin of the spec, or what is wrong with it or its config."""
    at = (*location, "config")
    found.spec += config_problems(group, choice, at, document)
    try:
        plugin = plugins.load_class(group, choice.name)
        found.configs[location] = plugin.Config.model_validate(with_secrets(choice.config))
        found.loaded[location] = plugins.make(group, choice.name, found.configs[location])
    except ValidationError as error:
        wrong = validation_problems(error, document, model=plugin.Config, prefix=at)
        found.spec += [_without_secrets(problem, choice) for problem in wrong]
    except PluginError as error:
        found.plugin += [placed(problem, location, document) for problem in error.problems]
    except EspalierError as error:
        found.spec += [placed(problem, at, document) for problem in error.problems]


def _check_candidate(spec: Spec, name: str, document: SpecDocument, plugins: Plugins, found: Found) -> None:
    """Adds what does not go together in a candidate; what is missing is reported already."""
    candidate, at = spec.candidates[name], ("candidates", name)
    strategy, learner = found.loaded.get((*at, "strategy")), found.loaded.get((*at, "learner"))
    if strategy is None or learner is None:
        return
    config = found.configs[*at, "strategy"]
    found.spec += candidate_problems(spec, name, strategy=config, learner=learner, document=document)
    kinds = _kinds(spec, found.loaded)
    found.spec += auxiliary_head_problems(candidate, learner.auxiliaries, kinds, at, document)
    try:
        if candidate.peft and (method := found.loaded.get((*at, "peft"))):
            with plugins.blaming("espalier.peft_methods", candidate.peft.name, "traits"):
                method.traits()  # `compose` asks for them too; here the one that fails is known
        for place, other in candidate.references().items():
            adapter, named = found.loaded.get(("candidates", other, "peft")), spec.candidates.get(other)
            if adapter and named and named.peft:
                with plugins.blaming("espalier.peft_methods", named.peft.name, "traits"):
                    found.spec += list(merging_problems(other, adapter, (*at, *place.split(".")), document))
        with plugins.blaming("espalier.model_strategies", candidate.strategy.name, "what it says of itself"):
            found.spec += list(_conflicts(name, candidate, found.loaded, document))
        with plugins.blaming("espalier.learners", candidate.learner.name, "columns"):
            found.spec += list(_signal_problems(name, learner, found.loaded, document))
        with plugins.blaming("espalier.tasks", spec.task_of(candidate).name, "columns"):
            moving = _moving_problems(spec, name, found.loaded, document)
            found.spec += [problem for problem in moving if problem not in found.spec]  # others may learn the same
    except PluginError as error:
        found.plugin += [placed(problem, at, document) for problem in error.problems]


def _kinds(spec: Spec, loaded: dict[Location, Any]) -> dict[str, tuple[HeadKind, HeadKind]]:
    """Returns for each candidate the head of its task and the one that its learner builds, where both are loaded."""
    found = {}
    for name in spec.candidates:
        at: Location = ("candidates", name)
        task, learner = loaded.get((*at, "task"), loaded.get(("objective", "task"))), loaded.get((*at, "learner"))
        if task is not None and learner is not None:
            found[name] = (task.head_kind, built_head(learner, Head(kind=task.head_kind)).kind)
    return found


def _tried(name: str, document: SpecDocument, plugins: Plugins, known: Found, spec: Spec) -> list[Problem]:
    """Returns what is wrong with one candidate of a derived spec; of the others all is known."""
    found = Found(loaded=dict(known.loaded), configs=dict(known.configs))
    for location, group, choice in choices_of(spec):
        if location[:2] == ("candidates", name):
            found.loaded.pop(location, None)
            _load(location, group, choice, document, plugins, found)
    _check_candidate(spec, name, document, plugins, found)
    return found.spec + found.plugin


def placed(problem: Problem, location: Location, document: SpecDocument) -> Problem:
    """Returns what a plugin says is wrong at its place in the spec; the field is the plugin's own, such as `paths.0`.

    A file that the plugin names goes into the message; only a line of such a file is the better place.
    """
    parts = (problem.field or "").removeprefix("config.").split(".") if problem.field else []
    inner = tuple(int(part) if part.isdecimal() else part for part in parts)
    message = f"{problem.file}: {problem.message}" if problem.file else problem.message
    there = document.problem((*location, *inner), message, code=problem.code)
    if problem.line is not None:
        return replace(problem, field=there.field)
    return replace(problem, message=message, file=there.file, line=there.line, column=there.column, field=there.field)


def objective_metric_is_greater_better(spec: Spec, plugins: Plugins) -> bool:
    """Tells the direction of the objective's metric."""
    return bool(plugins.load_class("espalier.metrics", objective_metric(spec, plugins).name).greater_is_better)


def objective_metric(spec: Spec, plugins: Plugins) -> Choice:
    """Returns the metric of `evaluate.metrics` that reports the objective's value."""
    for choice in spec.evaluate.metrics:
        if spec.objective.metric in plugins.load_class("espalier.metrics", choice.name).reports:
            return choice
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
        placement=Placement(
            zero_stage=where.zero_stage,
            workers=where.workers,
            dtype=dtype_of(candidate),
            quantise=quantisation(strategy),
            gradient_checkpointing=where.gradient_checkpointing,
        ),
        has_base=candidate.base is not None,
    ):
        yield document.problem(at, problem, code="conflict")


def _signal_problems(name: str, learner: Any, loaded: dict[Location, Any], document: SpecDocument) -> Iterator[Problem]:
    """Yields why a learner cannot learn from a task of its head; a task of another head is a conflict."""
    at: Location = ("candidates", name)
    task = loaded.get((*at, "task"), loaded.get(("objective", "task")))
    if task is None or task.head_kind not in learner.heads:
        return
    try:
        learner.columns(task)
    except EspalierError as error:
        yield from (placed(problem, at, document) for problem in error.problems)


def _moving_problems(spec: Spec, name: str, loaded: dict[Location, Any], document: SpecDocument) -> Iterator[Problem]:
    """Yields transforms that change a text whose characters the spans of a candidate's task count."""
    task = loaded.get(("candidates", name, "task"), loaded.get(("objective", "task")))
    data = spec.data_name(spec.candidates[name])
    for index, choice in enumerate(spec.data[data].transforms):
        at: Location = ("data", data, "transforms", index)
        transform = loaded.get(at)
        if task is None or not getattr(transform, "rewrites_text", False):
            continue
        uses, changed = task.columns().required, named_columns(transform)
        texts = [column for column, use in uses.items() if use == "text" and (column in changed or not changed)]
        spans = [column for column, use in uses.items() if use == "spans"]
        if texts and spans:
            yield document.problem(
                at,
                f"{choice.name} changes the text of column {texts[0]!r}, whose characters the spans of column "
                f"{spans[0]!r} count: they would stand on other words",
                code="moved_spans",
                given=choice.name,
                remedy="name other columns in its `columns`, or change the text before spans are made of it",
            )


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


def _serve_problems(spec: Spec, loaded: dict[Location, Any], document: SpecDocument) -> Iterator[Problem]:
    """Yields a `serve` that no request could be answered by: before anything is trained for it."""
    task = loaded.get(("objective", "task"))
    if spec.serve and task is not None and not getattr(task, "served", False):
        yield document.problem(
            ("serve",),
            f"the endpoint answers one label for each text, and {spec.objective.task.name} as it is configured gives "
            "another answer",
            code="not_served",
            remedy="remove `serve`; `espalier predict` answers the rows of a file",
        )


def _without_secrets(problem: Problem, choice: Choice) -> Problem:
    given = without_secrets(str(problem.given), choice.config) if problem.given is not None else None
    return replace(problem, message=without_secrets(problem.message, choice.config), given=given)
