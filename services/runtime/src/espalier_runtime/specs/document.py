"""A spec file as plain data that still knows on which line and column each value stands.

Knows nothing about what a spec means.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier_sdk.errors import Problem, SpecError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class SpecDocument:
    """One spec file: where it lies, its data, and the marks of its lines."""

    path: Path
    data: Any
    overridden: tuple[tuple[Location, str], ...] = ()

    @classmethod
    def read(cls, path: Path, *, overrides: Sequence[str] = ()) -> SpecDocument:
        """Reads a YAML 1.2 file; raises SpecError for a file that is absent, unreadable or no YAML.

        `overrides` are texts `a.b.c=value`, the value read as YAML, set before anything is checked.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise SpecError(
                f"cannot be read: {error.strerror}", file=str(path), remedy="give the path of a spec file"
            ) from error
        except UnicodeDecodeError as error:
            raise SpecError(
                f"is not UTF-8 (byte {error.start})", file=str(path), remedy="save the file as UTF-8"
            ) from error
        try:
            data = YAML(typ="rt", pure=True).load(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise SpecError(
                f"is not YAML: {error.problem or error.context}",
                code="yaml",
                file=str(path),
                line=mark.line + 1 if mark else None,
                column=mark.column + 1 if mark else None,
                remedy="correct the syntax; indentation is by spaces, and each key stands once",
            ) from error
        except (YAMLError, RecursionError, ValueError) as error:
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise SpecError(f"is not YAML: {first}", code="yaml", file=str(path)) from error
        document = cls(path=path.resolve(), data=data)
        placed = tuple((document._set(override), override) for override in overrides)
        return cls(path=document.path, data=data, overridden=placed)

    def plain(self) -> Any:
        """Returns the data without marks: dictionaries, lists, strings, numbers; SpecError where it holds itself."""
        try:
            return _plain(self.data)
        except RecursionError as error:
            raise SpecError("is nested without end: an alias names what it is part of", file=str(self.path)) from error

    def problem(self, location: Location, message: str, **facts: Any) -> Problem:
        """Returns a problem placed at a location, or at the nearest part of it that the file has."""
        line, column = self.place(location)
        field = ".".join(str(part) for part in location) or None
        override = next((text for at, text in self.overridden if location[: len(at)] == at), None)
        if override is not None:  # the file is not at fault
            return Problem(
                code=facts.pop("code", "spec"), message=message, file=f"--set {override}", field=field, **facts
            )
        return Problem(
            code=facts.pop("code", "spec"),
            message=message,
            file=str(self.path),
            line=line,
            column=column,
            field=field,
            **facts,
        )

    def place(self, location: Location) -> tuple[int | None, int | None]:
        """Returns line and column, from 1, of a location's key or item."""
        node, mark = self.data, None
        for part in location:
            if isinstance(node, CommentedMap) and part in node:
                found = (node.lc.data or {}).get(part)  # none for what --set or a merge key put there
                mark = tuple(found[:2]) if found else mark
            elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
                found = (node.lc.data or {}).get(part)
                mark = tuple(found[:2]) if found else mark
            else:
                break
            node = node[part]
        return (mark[0] + 1, mark[1] + 1) if mark else (None, None)

    def _set(self, override: str) -> Location:
        path, sign, value = override.partition("=")
        parts = path.split(".")
        if not sign or not all(parts):
            raise SpecError(f"--set {override}: must be a.b.c=value", field="--set", given=override)
        node, at = self.data, []
        for index, part in enumerate(parts[:-1]):
            key = _key(node, part)
            at.append(key)
            try:
                node = node[key]
            except (KeyError, IndexError, TypeError):
                if not isinstance(node, dict):
                    raise SpecError(
                        f"--set {override}: {'.'.join(parts[: index + 1])} cannot be set inside a value",
                        field="--set",
                        given=override,
                        remedy="write the plugin as {name: ..., config: ...} in the file first",
                    ) from None
                node[key] = CommentedMap()
                node = node[key]
        try:
            node[_key(node, parts[-1])] = YAML(typ="safe", pure=True).load(value)
        except (TypeError, IndexError, YAMLError):
            raise SpecError(f"--set {override}: cannot be set there", field="--set", given=override) from None
        return (*at, _key(node, parts[-1]))


def _key(node: Any, part: str) -> str | int:
    return int(part) if isinstance(node, list) and part.lstrip("-").isdigit() else part


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {_scalar(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return _scalar(node)


def _scalar(value: Any) -> Any:
    # ruamel keeps the spelling of scalars in subclasses; the spec wants the bare types.
    if isinstance(value, ScalarBoolean):  # an anchored true or false; Python lets nobody subclass bool
        return bool(value)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return str(value) if isinstance(value, datetime.date | datetime.time) else value
