"""Where an error of pydantic stands in a spec's file, and which model is meant there.

Knows nothing about what the error is.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from espalier_runtime.specs.document import Location, SpecDocument

_ABSENT = object()


def in_file(loc: tuple[str | int, ...], document: SpecDocument, prefix: Location = ()) -> Location:
    """Returns a place that pydantic names in the file's own keys, without the names of union branches."""
    return prefix + tuple(_in_file(loc, document, prefix))


def _in_file(loc: tuple[str | int, ...], document: SpecDocument, prefix: Location) -> Iterator[str | int]:
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


def models_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[type[BaseModel]]:
    """Returns the models that a value at a place may be of: several in a union, none for what is no model."""
    annotation: Any = model
    for part in loc:
        annotation = _inner(annotation, part)
    return list(_models(annotation))


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
