"""What of a broken spec can still be checked: the same spec with stand-ins where values are missing or wrong.

Knows nothing about what is checked then; a stand-in's own problems are nobody's: `Broken` tells where they are.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from espalier_sdk.choice import Choice
from pydantic import ValidationError

from espalier_runtime.specs.document import Location, SpecDocument
from espalier_runtime.specs.locations import in_file, models_at
from espalier_runtime.specs.models import Spec

_WORD = "unread"
_STAND_INS: dict[str | int, Any] = {  # what a spec cannot be without; all else may be left out
    **dict.fromkeys(("name", "metric", "task", "strategy", "from", "endpoint"), _WORD),
    "sources": [_WORD],
    "objective": {"task": _WORD, "metric": _WORD},
    "data": {_WORD: {"sources": [_WORD]}},
    "candidates": {_WORD: {"strategy": _WORD}},
}
_ROUNDS = 8  # what was left out may be missed by what is around it, and so on


@dataclass(frozen=True, slots=True)
class Broken:
    """The places of a spec that hold a stand-in, or nothing, in place of what its file has."""

    places: frozenset[Location] = frozenset()

    def at(self, location: Location) -> bool:
        """Tells whether a value is a stand-in, or a part of one."""
        return any(location[: len(place)] == place for place in self.places)

    def within(self, location: Location) -> bool:
        """Tells whether something inside a value is broken, or the value itself."""
        return self.at(location) or any(place[: len(location)] == location for place in self.places)


NOWHERE = Broken()


def salvaged(data: dict[str, Any], error: ValidationError, document: SpecDocument) -> tuple[Spec | None, Broken]:
    """Returns what is left of a spec that pydantic refused, and where it is broken; None where nothing can be left."""
    data, places = copy.deepcopy(data), set[Location]()
    for _ in range(_ROUNDS):
        for item in error.errors(include_url=False):
            location = _whole(in_file(item["loc"], document))
            if not location:
                return None, NOWHERE
            places.add(location)
            _mend(data, location, missing=item["type"] == "missing")
        try:
            return Spec.model_validate(data), Broken(frozenset(places))
        except ValidationError as again:
            error = again
    return None, NOWHERE


def _whole(location: Location) -> Location:
    """Returns the place of the choice that a place is in, else the place itself: a choice is read whole or not."""
    for end in range(1, len(location)):
        if Choice in models_at(Spec, location[:end]):
            return location[:end]
    return location


def _mend(data: dict[str, Any], location: Location, *, missing: bool) -> None:
    """Puts a stand-in where there must be something, else takes away what is there."""
    *above, last = location
    node: Any = data
    for index, part in enumerate(above):
        node = node[part] if _has(node, part) else None
        if isinstance(node, list) and Choice not in models_at(Spec, location[: index + 2]):
            return _mend(data, location[: index + 1], missing=False)  # without one of its values a list means another
    if Choice in models_at(Spec, location) and _has(node, last):
        node[last] = _WORD
    elif missing and isinstance(node, dict) and last in _STAND_INS:
        node[last] = copy.deepcopy(_STAND_INS[last])
    elif missing:
        _mend(data, location[:-1], missing=False)
    elif isinstance(node, dict):
        node.pop(last, None)


def _has(node: Any, part: str | int) -> bool:
    return part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))
