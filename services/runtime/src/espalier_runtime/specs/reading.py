"""From a document to a checked `Spec`: all errors of a file at once, each with its place and "did you mean".

Knows nothing about what plugins are installed; `specs.checking` asks them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier_sdk.choice import Choice
from espalier_sdk.errors import Problem, SpecError
from espalier_sdk.groups import did_you_mean
from pydantic import BaseModel, ValidationError

from espalier_runtime.specs.document import Location, SpecDocument
from espalier_runtime.specs.locations import in_file, models_at
from espalier_runtime.specs.models import From, Spec
from espalier_runtime.specs.salvaging import NOWHERE, Broken, salvaged

_PATH_KEYS = ("path", "paths")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file says: a spec, and what is wrong with it. The spec has stand-ins at the places that are broken."""

    document: SpecDocument
    spec: Spec | None
    problems: tuple[Problem, ...] = ()
    broken: Broken = NOWHERE


def load_spec(path: Path, *, overrides: Sequence[str] = ()) -> tuple[Spec, SpecDocument]:
    """Reads a spec; relative paths in plugin configs become absolute, against the folder of the file.

    Raises SpecError with every problem of the file: wrong types and ranges, unknown keys, references to
    candidates or data that are not there or go in a circle.
    """
    reading = read_spec(path, overrides=overrides)
    if reading.problems:
        raise SpecError(problems=reading.problems)
    assert reading.spec is not None, "nothing is wrong with it"
    return reading.spec, reading.document


def read_spec(path: Path, *, overrides: Sequence[str] = ()) -> Reading:
    """Reads a spec as far as it can be read; SpecError for a file that is no YAML, or holds no mapping."""
    document = SpecDocument.read(path, overrides=overrides)
    data = document.plain()
    if not isinstance(data, dict):
        raise SpecError(
            "holds no mapping", file=str(document.path), remedy="start from `espalier new` or `espalier init`"
        )
    data = _absolute(data, document.path.parent)
    problems: tuple[Problem, ...] = ()
    spec: Spec | None
    try:
        spec, broken = Spec.model_validate(data), NOWHERE
    except ValidationError as error:
        problems = validation_problems(error, document, model=Spec)
        spec, broken = salvaged(data, error, document)
    if spec is not None:
        problems += tuple(_reference_problems(spec, document, broken))
    return Reading(document, spec, problems, broken)


def validation_problems(
    error: ValidationError, document: SpecDocument, *, model: type[BaseModel], prefix: Location = ()
) -> tuple[Problem, ...]:
    """Returns pydantic's errors as problems with line, column, field and suggestion, in the order of the file."""
    found: dict[tuple[Any, ...], Problem] = {}
    for item in error.errors(include_url=False):
        location = in_file(item["loc"], document, prefix)
        problem = _problem(item, location, document, model)
        found.setdefault((problem.field, problem.message), problem)
    return tuple(sorted(found.values(), key=lambda problem: (problem.line or 0, problem.column or 0)))


def _problem(item: Any, location: Location, document: SpecDocument, model: type[BaseModel]) -> Problem:
    kind, given = item["type"], item.get("input")
    if kind == "extra_forbidden":
        owner = next(iter(models_at(model, item["loc"][:-1])), None)
        known = sorted(field.alias or name for name, field in owner.model_fields.items()) if owner else []
        return document.problem(
            location,
            f"unknown key {item['loc'][-1]!r}",
            code="unknown_key",
            given=_short(given),
            accepted=", ".join(known) or "no keys here",
            remedy=did_you_mean(str(item["loc"][-1]), known),
        )
    if kind == "missing":
        return document.problem(location, f"{item['loc'][-1]} is missing", code="missing", remedy="add it")
    message = _MESSAGES.get(kind) or item["msg"].removeprefix("Value error, ")
    if item["loc"][-1:] == ("[key]",):
        message = f"name {message[0].lower()}{message[1:]}"
    return document.problem(
        location,
        f"{_short(given)}: {message[0].lower()}{message[1:]}",
        code=kind,
        given=_short(given),
        accepted=_accepted(item),
        remedy=_nearest(item),
    )


_KINDS = {
    "int": "a whole number",
    "finite": "a finite number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
}
_MESSAGES = {  # in place of pydantic's, which speak of Python's types and of patterns
    **dict.fromkeys([f"{kind}_type" for kind in _KINDS], "is of another kind"),
    "string_pattern_mismatch": "does not fit",
}
_PATTERNS = {
    "^[a-z0-9][a-z0-9-]{0,40}$": "lower-case letters, digits and dashes, 41 at most",
    "^[a-z0-9][a-z0-9-]*$": "lower-case letters, digits and dashes",
    "^/": "a path from / on",
}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _accepted(item: Any) -> str | None:
    """Returns what would be accepted in place of a value, in words."""
    kind, context = item["type"], item.get("ctx") or {}
    if kind == "model_type":
        named = context.get("class_name") in ("Choice", "From")
        return "a name, or a mapping {name, config}" if named else "a mapping"
    bounds = [f"{words} {context[key]}" for key, words in _BOUNDS.items() if key in context]
    if (pattern := context.get("pattern")) is not None:
        bounds.append(_PATTERNS.get(pattern, f"text like {pattern}"))
    for key, word in (("expected", "{}"), ("min_length", "{} at least")):
        if key in context:
            bounds.append(word.format(context[key]))
    return " and ".join(bounds) or _KINDS.get(kind.partition("_")[0])


def _nearest(item: Any) -> str | None:
    if item["type"] != "literal_error" or not isinstance(item.get("input"), str):
        return None
    return did_you_mean(item["input"], item["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", "))


def _reference_problems(spec: Spec, document: SpecDocument, broken: Broken) -> Iterator[Problem]:
    names, datas = _names(document, "candidates", spec.candidates), _names(document, "data", spec.data)
    for name, candidate in spec.candidates.items():
        at: Location = ("candidates", name)
        if candidate.data is not None and candidate.data not in datas and not broken.at((*at, "data")):
            yield _unknown(document, (*at, "data"), candidate.data, datas, "data")
        if candidate.data is None and len(datas) > 1 and not broken.within(at):
            yield document.problem(
                at, f"says no `data`, and there are {len(datas)}", accepted=", ".join(datas), remedy="add `data:`"
            )
        for field, other in candidate.references().items():
            place = (*at, *field.split("."))
            if other not in names and not broken.at(place):
                yield _unknown(document, place, other, names, "candidate")
    yield from _circles(spec, document)
    if not any(one.competes for one in spec.candidates.values()) and not broken.within(("candidates",)):
        yield document.problem(("candidates",), "no candidate competes", remedy="remove `competes: false` from one")
    if spec.serve:
        apart = [name for name, one in spec.candidates.items() if not one.competes]
        accepted = ["chosen", "runner-up", *(name for name in names if name not in apart)]
        for field in ("bootstrap", "challenger"):
            value, place = getattr(spec.serve, field), ("serve", field)
            if value in apart:
                yield document.problem(
                    place,
                    f"candidate {value!r} does not compete: only what was compared is served",
                    code="not_compared",
                    given=value,
                    accepted=", ".join(accepted),
                    remedy="remove its `competes: false`, or name another",
                )
            elif value is not None and value not in accepted and not broken.at(place):
                yield _unknown(document, place, value, accepted, "candidate")


def _names(document: SpecDocument, key: str, read: Mapping[str, object]) -> list[str]:
    """Returns the names that a part of the file has, also of what could not be read."""
    node = document.data.get(key)
    return [str(name) for name in node] if isinstance(node, dict) else list(read)


def _unknown(document: SpecDocument, at: Location, given: str, known: list[str], noun: str) -> Problem:
    return document.problem(
        at,
        f"there is no {noun} {given!r}",
        code="unknown_reference",
        given=given,
        accepted=", ".join(known),
        remedy=did_you_mean(given, known),
    )


def _circles(spec: Spec, document: SpecDocument) -> Iterator[Problem]:
    try:
        candidate_order(spec)
    except RecursionError as error:
        circle = error.args[0]
        yield document.problem(
            ("candidates", circle[0]),
            f"candidates refer to each other in a circle: {' -> '.join(circle)}",
            code="circle",
            remedy="let one of them start from a base of its own",
        )


def candidate_order(spec: Spec) -> list[str]:
    """Returns the candidates so that each comes after those it refers to, else in the order of the spec.

    Raises RecursionError, whose argument is the circle, where there is none.
    """
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise RecursionError([*above[above.index(name) :], name])
        if name in order or name not in spec.candidates:
            return
        for other in spec.candidates[name].references().values():
            visit(other, (*above, name))
        order.append(name)

    for name in spec.candidates:
        visit(name, ())
    return order


def choices_of(spec: Spec) -> Iterator[tuple[Location, str, Choice]]:
    """Yields every plugin that a spec names: where, in which group, and the choice."""
    yield ("objective", "task"), "espalier.tasks", spec.objective.task
    for name, data in spec.data.items():
        for index, choice in enumerate(data.sources):
            yield ("data", name, "sources", index), "espalier.sources", choice
        for index, choice in enumerate(data.transforms):
            yield ("data", name, "transforms", index), "espalier.transforms", choice
    for name, candidate in spec.candidates.items():
        at: Location = ("candidates", name)
        yield (*at, "strategy"), "espalier.model_strategies", candidate.strategy
        if candidate.base is not None and not isinstance(candidate.base, From):
            yield (*at, "base"), "espalier.base_models", candidate.base
        if candidate.peft is not None:
            yield (*at, "peft"), "espalier.peft_methods", candidate.peft
        yield (*at, "learner"), "espalier.learners", candidate.learner
        if candidate.task is not None:
            yield (*at, "task"), "espalier.tasks", candidate.task
        for index, choice in enumerate(candidate.controls):
            yield (*at, "controls", index), "espalier.training_controls", choice
    for index, choice in enumerate(spec.evaluate.metrics):
        yield ("evaluate", "metrics", index), "espalier.metrics", choice
    yield ("evaluate", "engine"), "espalier.engines", spec.evaluate.engine


def _absolute(node: Any, folder: Path, *, in_config: bool = False) -> Any:
    """Makes paths absolute in the configs of plugins, and only there: data or a candidate may be named `path`."""
    if isinstance(node, dict):
        return {
            key: _absolute_path(value, folder)
            if in_config and key in _PATH_KEYS
            else _absolute(value, folder, in_config=in_config or key == "config")
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_absolute(value, folder, in_config=in_config) for value in node]
    return node


def _absolute_path(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_absolute_path(item, folder) for item in value]
    if not isinstance(value, str) or not value or "://" in value:
        return value
    return str(folder / Path(value).expanduser())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
