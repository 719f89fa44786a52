"""From a document to a checked `Spec`: all errors of a file at once, each with its place and "did you mean".

Knows nothing about what plugins are installed; `specs.checking` asks them.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from espalier_sdk.choice import Choice
from espalier_sdk.errors import Problem, SpecError
from espalier_sdk.groups import did_you_mean
from pydantic import BaseModel, ValidationError

from espalier_runtime.specs.document import Location, SpecDocument
from espalier_runtime.specs.models import From, Spec

_PATH_KEYS = ("path", "paths")
_ABSENT = object()


def load_spec(path: Path, *, overrides: Sequence[str] = ()) -> tuple[Spec, SpecDocument]:
    """Reads a spec; relative paths in plugin configs become absolute, against the folder of the file.

    Raises SpecError with every problem of the file: wrong types and ranges, unknown keys, references to
    candidates or data that are not there or go in a circle.
    """
    document = SpecDocument.read(path, overrides=overrides)
    data = document.plain()
    if not isinstance(data, dict):
        raise SpecError(
            "holds no mapping", file=str(document.path), remedy="start from `espalier new` or `espalier init`"
        )
    try:
        spec = Spec.model_validate(_absolute(data, document.path.parent))
    except ValidationError as error:
        raise SpecError(problems=validation_problems(error, document, model=Spec)) from None
    problems = tuple(_reference_problems(spec, document))
    if problems:
        raise SpecError(problems=problems)
    return spec, document


def validation_problems(
    error: ValidationError, document: SpecDocument, *, model: type[BaseModel], prefix: Location = ()
) -> tuple[Problem, ...]:
    """Returns pydantic's errors as problems with line, column, field and suggestion, in the order of the file."""
    found: dict[tuple[Any, ...], Problem] = {}
    for item in error.errors(include_url=False):
        location = prefix + tuple(part for part in _real(item["loc"], document, prefix))
        problem = _problem(item, location, document, model)
        found.setdefault((problem.field, problem.message), problem)
    return tuple(sorted(found.values(), key=lambda problem: (problem.line or 0, problem.column or 0)))


def _problem(item: Any, location: Location, document: SpecDocument, model: type[BaseModel]) -> Problem:
    kind, given = item["type"], item.get("input")
    if kind == "extra_forbidden":
        owner = _model_at(model, item["loc"][:-1])
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
    message = item["msg"].removeprefix("Value error, ")
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
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _accepted(item: Any) -> str | None:
    """Returns what would be accepted in place of a value, in words."""
    kind, context = item["type"], item.get("ctx") or {}
    if kind == "model_type":
        named = context.get("class_name") in ("Choice", "From")
        return "a name, or a mapping {name, config}" if named else "a mapping"
    bounds = [f"{words} {context[key]}" for key, words in _BOUNDS.items() if key in context]
    for key, word in (("expected", "{}"), ("pattern", "text like {}"), ("min_length", "{} at least")):
        if key in context:
            bounds.append(word.format(context[key]))
    return " and ".join(bounds) or _KINDS.get(kind.partition("_")[0])


def _nearest(item: Any) -> str | None:
    if item["type"] != "literal_error" or not isinstance(item.get("input"), str):
        return None
    return did_you_mean(item["input"], item["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", "))


def _real(loc: tuple[str | int, ...], document: SpecDocument, prefix: Location) -> Iterator[str | int]:
    """Leaves out what pydantic puts into a location beside the file's own keys (names of union branches)."""
    node = document.data
    for part in prefix:
        node = _child(node, part)
    for index, part in enumerate(loc):
        child = _child(node, part)
        if child is not _ABSENT:
            node = child
            yield part
        elif index == len(loc) - 1 and isinstance(node, dict | list) and not _is_branch(part):
            yield part


def _child(node: Any, part: str | int) -> Any:
    if isinstance(node, dict):
        return node.get(part, _ABSENT)
    inside = isinstance(node, list) and isinstance(part, int) and 0 <= part < len(node)
    return node[part] if inside else _ABSENT


def _is_branch(part: str | int) -> bool:
    return isinstance(part, str) and (
        part in ("Choice", "From", "[key]") or part.startswith(("function-", "constrained-"))
    )


def _model_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> type[BaseModel] | None:
    annotation: Any = model
    for part in loc:
        annotation = _inner(annotation, part)
    return next(_models(annotation), None)


def _inner(annotation: Any, part: str | int) -> Any:
    for candidate in _models(annotation):
        by_alias = {field.alias or name: field for name, field in candidate.model_fields.items()}
        if part in by_alias:
            return by_alias[str(part)].annotation
    if _is_branch(part):
        return next((one for one in _models(annotation) if one.__name__ == part), annotation)
    for branch in _branches(annotation):
        if get_origin(branch) is dict:
            return get_args(branch)[1]
        if get_origin(branch) is tuple:
            return get_args(branch)[0]
    return annotation


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    for branch in _branches(annotation):
        if isinstance(branch, type) and issubclass(branch, BaseModel):
            yield branch


def _branches(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from _branches(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for branch in get_args(annotation):
            yield from _branches(branch)
    else:
        yield annotation


def _reference_problems(spec: Spec, document: SpecDocument) -> Iterator[Problem]:
    names = list(spec.candidates)
    for name, candidate in spec.candidates.items():
        at: Location = ("candidates", name)
        if candidate.data is not None and candidate.data not in spec.data:
            yield _unknown(document, (*at, "data"), candidate.data, list(spec.data), "data")
        if candidate.data is None and len(spec.data) > 1:
            names_of = ", ".join(spec.data)
            yield document.problem(
                at, f"says no `data`, and there are {len(spec.data)}", accepted=names_of, remedy="add `data:`"
            )
        for field, other in candidate.references().items():
            if other not in spec.candidates:
                yield _unknown(document, (*at, *field.split(".")), other, names, "candidate")
    yield from _circles(spec, document)
    if not any(candidate.competes for candidate in spec.candidates.values()):
        yield document.problem(("candidates",), "no candidate competes", remedy="remove `competes: false` from one")
    if spec.serve:
        accepted = ["chosen", "runner-up", *(name for name in names if spec.candidates[name].competes)]
        for field in ("bootstrap", "challenger"):
            value = getattr(spec.serve, field)
            if value in names and value not in accepted:
                yield document.problem(
                    ("serve", field),
                    f"candidate {value!r} does not compete: only what was compared is served",
                    code="not_compared",
                    given=value,
                    accepted=", ".join(accepted),
                    remedy="remove its `competes: false`, or name another",
                )
            elif value is not None and value not in accepted:
                yield _unknown(document, ("serve", field), value, accepted, "candidate")


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
