"""Compares the columns that tasks, transforms and splits need with the data's own, before any work.

Reads the first rows of each part, and more only where a column is not among theirs; starts no Ray.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from espalier_runtime.plugins import Plugins, named_columns
from espalier_runtime.specs import Spec, SpecDocument, load_spec
from espalier_sdk.columns import RESERVED_PREFIX
from espalier_sdk.errors import DataError, EspalierError, Problem, SpecError
from espalier_sdk.groups import did_you_mean

_LATER_BATCHES = 100  # of usually ten thousand rows: about a second


@dataclass(frozen=True, slots=True)
class Need:
    """A column that a spec names, and where."""

    at: tuple[str | int, ...]
    column: str


@dataclass(frozen=True, slots=True)
class KnownColumns:
    """The columns that were seen, and whether every row was."""

    names: list[str]
    complete: bool


def check_columns(path: Path | str, *, overrides: Sequence[str] = ()) -> list[str]:
    """Returns in words what could not be decided without reading all the data.

    Raises SpecError for every column that a spec names and its data lack, DataError for data that is not there.
    """
    spec, document = load_spec(Path(path), overrides=overrides)
    plugins = Plugins()
    notes: list[str] = []
    problems: list[Problem] = []
    failures: list[Problem] = []
    for name, data in spec.data.items():
        needs = list(_needs(spec, name, plugins))
        try:
            known = source_columns(data.sources, plugins, wanted={need.column for need in needs})
        except EspalierError as error:
            failures += error.problems
            continue
        missing = {need.column: need for need in reversed(needs) if need.column not in known.names}.values()
        if known.complete:
            problems += [_missing(document, need, known.names, name) for need in missing]
        else:
            notes += [
                f"data {name} has no column {need.column!r} in the rows that were looked at; a later one may have it"
                for need in missing
            ]
    if problems:
        raise SpecError(problems=tuple(problems + failures))
    if failures:
        raise DataError(problems=tuple(failures))
    return notes


def source_columns(sources: Sequence[Any], plugins: Plugins, *, wanted: Collection[str]) -> KnownColumns:
    """Returns the columns of each part's first rows, in order; reads on while one that is wanted was not seen.

    Files of one source may differ, and so may the rows of one file: a key of JSON may come late.
    """
    found: dict[str, None] = {}
    opened = [plugins.load("espalier.sources", choice) for choice in sources]
    parts = [(source, part) for source in opened for part in source.parts()]
    for source, part in parts:
        for batch in islice(source.read(part), 1):
            found.update(dict.fromkeys(batch.schema.names))
        if wanted and set(wanted) <= set(found):
            break
    later = (batch for source, part in parts for batch in islice(source.read(part), 1, None))
    read = 0
    while not set(wanted) <= set(found) and read < _LATER_BATCHES and (batch := next(later, None)) is not None:
        found.update(dict.fromkeys(batch.schema.names))
        read += 1
    names = [name for name in found if not name.startswith(RESERVED_PREFIX)]
    return KnownColumns(names, complete=read < _LATER_BATCHES)


def _needs(spec: Spec, data: str, plugins: Plugins) -> Iterator[Need]:
    """Yields the columns that candidates, transforms and the split read from one of the spec's data."""
    for name, candidate in spec.candidates.items():
        if spec.data_name(candidate) == data:
            at = ("candidates", name, "task", "config") if candidate.task else ("objective", "task", "config")
            task = plugins.load("espalier.tasks", spec.task_of(candidate))
            learner = plugins.load("espalier.learners", candidate.learner)
            yield from (Need(at, column) for column in learner.columns(task).required)
    for index, choice in enumerate(spec.data[data].transforms):
        transform = plugins.load("espalier.transforms", choice)
        place = ("data", data, "transforms", index, "config", "columns")
        yield from (Need(place, column) for column in named_columns(transform))
    for field in ("group", "column"):
        if (column := getattr(spec.data[data].split, field)) is not None:
            yield Need(("data", data, "split", field), column)


def _missing(document: SpecDocument, need: Need, known: list[str], data: str) -> Problem:
    return document.problem(
        need.at,
        f"data {data} has no column {need.column!r}",
        code="missing_column",
        given=need.column,
        accepted=", ".join(known),
        remedy=did_you_mean(need.column, known),
    )
