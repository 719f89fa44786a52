"""Compares what a spec says of its data with the data: files that are there, columns, and what a task can learn.

Reads the first rows of each part, and more only of little data and where a column is not among theirs; starts no Ray.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import islice
from typing import Any

from espalier_runtime.plugins import named_columns
from espalier_runtime.specs import Candidate, Spec, SpecDocument
from espalier_runtime.specs.checking import Found, placed
from espalier_runtime.specs.document import Location
from espalier_runtime.specs.reading import Reading
from espalier_sdk.columns import ERROR, RESERVED_PREFIX
from espalier_sdk.errors import EspalierError, Problem
from espalier_sdk.groups import did_you_mean

_LATER_BATCHES = 100  # of usually ten thousand rows: about a second
_WHOLE_BATCHES = 5  # data of so few are read to their end, and the task looks at all of them
_ONE_CLASS = "one_class"  # the code by which tasks say that there is nothing to tell apart


@dataclass(frozen=True, slots=True)
class Need:
    """A column that a spec names, and where."""

    at: Location
    column: str
    measured: str | None = None  # the candidate that is measured by it, and learns without it


@dataclass
class _Seen:
    """What was seen of some data."""

    columns: dict[str, None] = field(default_factory=dict)
    read: int = 0  # batches
    batches: list[Any] = field(default_factory=list)  # as long as they may be the whole
    everywhere: bool = True  # every source could be looked at, or says its columns itself
    to_the_end: bool = True  # a column that was not seen is in no row
    whole: bool = True  # the batches are all rows

    def is_enough(self, wanted: Collection[str]) -> bool:
        """Tells that nothing more would be learned: all columns are known, and these are too many rows for the rest."""
        return set(wanted) <= set(self.columns) and self.read > _WHOLE_BATCHES

    def take(self, batches: Iterable[Any]) -> None:
        """Adds some rows."""
        for batch in batches:
            self.columns.update({name: None for name in batch.schema.names if not name.startswith(RESERVED_PREFIX)})
            self.read += 1
            self.whole = self.whole and self.read <= _WHOLE_BATCHES
            self.batches = [*self.batches, batch] if self.whole else []


def check_data(reading: Reading, found: Found) -> list[str]:
    """Adds what is wrong with the data of a spec; returns in words what only reading all of them would decide.

    What cannot be told, because a part of the spec is broken or a file is not there, is left out.
    """
    spec, document, notes = reading.spec, reading.document, list[str]()
    if spec is None:
        return notes
    for name in spec.data:
        needs = [need for need in _needs(spec, name, found) if not reading.broken.at(need.at)]
        seen = _look(spec, name, found, document, wanted={need.column for need in needs})
        missing = {need.column: need for need in reversed(needs) if need.column not in seen.columns}.values()
        if not seen.everywhere:
            continue
        if seen.to_the_end:
            found.spec += [_missing(document, need, list(seen.columns), name) for need in missing]
        else:
            notes += [
                f"data {name} has no column {need.column!r} in the rows that were looked at; a later one may have it"
                for need in missing
            ]
        if seen.whole and seen.batches and not missing:
            found.data += _unlearnable(spec, name, seen.batches, found, document)
    return notes


def _look(spec: Spec, data: str, found: Found, document: SpecDocument, *, wanted: Collection[str]) -> _Seen:
    """Reads the first rows of each part of some data, and on to their end where they are few or a column is not seen.

    Files of one source may differ, and so may the rows of one file: a key of JSON may come late.
    """
    seen, parts = _Seen(), list[tuple[Location, Any, Any]]()
    for index in range(len(spec.data[data].sources)):
        at: Location = ("data", data, "sources", index)
        if (source := found.loaded.get(at)) is None:
            seen.everywhere = seen.whole = False  # why is told already
            continue
        with _placing(at, source, seen, found, document):
            parts += [(at, source, part) for part in source.parts()]
    for at, source, part in parts:
        with _placing(at, source, seen, found, document):
            seen.take(islice(source.read(part), 1))
        if seen.is_enough(wanted):
            return seen
    first = seen.read
    for at, source, part in parts:
        with _placing(at, source, seen, found, document):
            for batch in islice(source.read(part), 1, None):
                if seen.is_enough(wanted):
                    return seen
                if seen.read == first + _LATER_BATCHES:
                    seen.to_the_end = False
                    return seen
                seen.take((batch,))
    return seen


@contextmanager
def _placing(at: Location, source: Any, seen: _Seen, found: Found, document: SpecDocument) -> Iterator[None]:
    """Adds what a source says is wrong, placed in the spec; its columns are then those that its config names."""
    try:
        yield
    except EspalierError as error:
        told = [placed(problem, (*at, "config"), document) for problem in error.problems]
        found.data += [problem for problem in told if problem not in found.data]
        seen.columns.update(dict.fromkeys(named_columns(source)))
        seen.everywhere = seen.everywhere and bool(named_columns(source))
        seen.whole = False


def _unlearnable(
    spec: Spec, data: str, batches: Sequence[Any], found: Found, document: SpecDocument
) -> Iterator[Problem]:
    """Yields tasks for which all the rows have too few classes: what is done to whole rows makes no more of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    tables = [pa.Table.from_batches([batch]) for batch in batches]
    tables = [table.filter(pc.is_null(table[ERROR])) for table in tables]
    for at, config in {_task_at(spec, name): spec.task_of(one).config for name, one in _users(spec, data)}.items():
        task = found.loaded.get(at)
        if task is None or any(_has_gaps(table, task.columns().required) for table in tables):
            continue  # a transform may fill the gaps
        try:
            task.finish(reduce(task.combine, [task.observe(table) for table in tables]))
        except EspalierError as error:
            for problem in error.problems:
                if problem.code == _ONE_CLASS:
                    there = document.problem((*at, *_named(config, str(problem.field))), "")
                    yield replace(problem, file=there.file, line=there.line, column=there.column, field=there.field)


def _has_gaps(table: Any, names: Collection[str]) -> bool:
    return any(name not in table.column_names or table[name].null_count for name in names)


def _users(spec: Spec, data: str) -> list[tuple[str, Candidate]]:
    """Returns the candidates that learn from some data, with their names; of several data one must be named."""
    told = [(name, one) for name, one in spec.candidates.items() if one.data is not None or len(spec.data) == 1]
    return [(name, one) for name, one in told if spec.data_name(one) == data]


def _needs(spec: Spec, data: str, found: Found) -> Iterator[Need]:
    """Yields the columns that candidates, transforms and the split read from one of the spec's data."""
    for name, candidate in _users(spec, data):
        at, learner = _task_at(spec, name), found.loaded.get(("candidates", name, "learner"))
        task = found.loaded.get(at)
        if task is not None and learner is not None:
            config = spec.task_of(candidate).config
            with suppress(EspalierError):  # it cannot learn this task: that is told already
                required = learner.columns(task).required
                yield from (Need((*at, *_named(config, column)), column) for column in required)
    for name, candidate in _users(spec, data):
        task = found.loaded.get(_task_at(spec, name))
        if task is not None and candidate.competes:
            yield from (Need(("candidates", name, "competes"), one, measured=name) for one in task.columns().required)
    for index in range(len(spec.data[data].transforms)):
        place: Location = ("data", data, "transforms", index)
        yield from (Need((*place, "config", "columns"), one) for one in named_columns(found.loaded.get(place)))
    for field_name in ("group", "column"):
        if (column := getattr(spec.data[data].split, field_name)) is not None:
            yield Need(("data", data, "split", field_name), column)


def _task_at(spec: Spec, candidate: str) -> Location:
    return ("candidates", candidate, "task") if spec.candidates[candidate].task else ("objective", "task")


def _named(config: Mapping[str, Any], column: str) -> Location:
    """Returns where in a plugin's choice a column is named; its config as a whole where it is so by default."""
    for key, value in config.items():
        if value == column:
            return ("config", key)
        if isinstance(value, list) and column in value:
            return ("config", key, value.index(column))
    return ("config",)


def _missing(document: SpecDocument, need: Need, known: list[str], data: str) -> Problem:
    why = f", and candidate {need.measured} learns without it but is measured by it" if need.measured else ""
    filled = "fill it in the rows of validation and test, or say `competes: false`" if need.measured else None
    return document.problem(
        need.at,
        f"data {data} has no column {need.column!r}{why}",
        code="missing_column",
        given=need.column,
        accepted=", ".join(known),
        remedy=did_you_mean(need.column, known) or filled,
    )
