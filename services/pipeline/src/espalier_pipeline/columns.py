"""Compares the columns that tasks and transforms need with the data's own, before any work.

Reads the first rows of the first part of each source; starts no Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from espalier_runtime.plugins import Plugins
from espalier_runtime.specs import Spec, SpecDocument, load_spec
from espalier_sdk.columns import RESERVED_PREFIX
from espalier_sdk.errors import DataError, EspalierError, Problem, SpecError
from espalier_sdk.groups import did_you_mean


def check_columns(path: Path | str, *, overrides: Sequence[str] = ()) -> None:
    """Raises SpecError for every column that a spec names and its data lack, DataError for data that is not there."""
    spec, document = load_spec(Path(path), overrides=overrides)
    plugins = Plugins()
    known: dict[str, list[str]] = {}
    problems: list[Problem] = []
    failures: list[Problem] = []
    for name, data in spec.data.items():
        try:
            known[name] = source_columns(data.sources, plugins)
        except EspalierError as error:
            failures += error.problems
    problems += _problems(spec, document, plugins, known)
    if problems:
        raise SpecError(problems=tuple(problems + failures))
    if failures:
        raise DataError(problems=tuple(failures))


def source_columns(sources: Sequence[Any], plugins: Plugins) -> list[str]:
    """Returns the columns of the first rows of each source, in order."""
    found: dict[str, None] = {}
    for choice in sources:
        source = plugins.load("espalier.sources", choice)
        for part in islice(source.parts(), 1):
            for batch in islice(source.read(part), 1):
                found.update(dict.fromkeys(batch.schema.names))
    return [name for name in found if not name.startswith(RESERVED_PREFIX)]


def _problems(spec: Spec, document: SpecDocument, plugins: Plugins, known: dict[str, list[str]]) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for name, candidate in spec.candidates.items():
        data = spec.data_name(candidate)
        if data not in known:
            continue
        at = ("candidates", name, "task") if candidate.task else ("objective", "task")
        task = plugins.load("espalier.tasks", spec.task_of(candidate))
        learner = plugins.load("espalier.learners", candidate.learner)
        for column in learner.columns(task).required:
            if column not in known[data] and (str(at), column) not in seen:
                seen.add((str(at), column))
                yield _missing(document, (*at, "config"), column, known[data], data)
    for data, columns in known.items():
        for field in ("group", "column"):
            column = getattr(spec.data[data].split, field)
            if column is not None and column not in columns:
                yield _missing(document, ("data", data, "split", field), column, columns, data)


def _missing(document: SpecDocument, at: tuple[str, ...], column: str, known: list[str], data: str) -> Problem:
    return document.problem(
        at,
        f"data {data} has no column {column!r}",
        code="missing_column",
        given=column,
        accepted=", ".join(known),
        remedy=did_you_mean(column, known),
    )
