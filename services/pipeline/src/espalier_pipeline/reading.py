"""Reading and checking a spec, as `check` and notebooks do it: no torch, no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from espalier_runtime.plugins import Plugins
from espalier_runtime.request import StageRequest, ingest_request
from espalier_runtime.specs import Spec, SpecDocument
from espalier_runtime.specs.checking import Found, examine, placed
from espalier_runtime.specs.reading import Reading, read_spec
from espalier_sdk.errors import EspalierError

from espalier_pipeline.columns import check_data


def check(path: Path | str, *, overrides: Sequence[str] = ()) -> Spec:
    """Returns a spec in which nothing is wrong; raises SpecError or PluginError with all that is."""
    return load_checked(path, overrides=overrides)[0]


def load_checked(path: Path | str, *, overrides: Sequence[str] = ()) -> tuple[Spec, SpecDocument]:
    """Returns a spec in which nothing is wrong, and its file; raises SpecError or PluginError with all that is."""
    reading, found = _examined(path, overrides)
    return _sound(reading, found), reading.document


def check_with_data(path: Path | str, *, overrides: Sequence[str] = ()) -> tuple[Spec, list[str]]:
    """Returns a spec in which nothing is wrong, and in words what only reading all of its data would decide.

    Raises SpecError, PluginError or DataError with all that is wrong with spec, plugins and data.
    """
    reading, found = _examined(path, overrides)
    notes = check_data(reading, found)
    return _sound(reading, found), notes


def corpus_requests(
    spec: Spec, candidates: Sequence[str], document: SpecDocument, plugins: Plugins
) -> dict[str, StageRequest]:
    """Returns the requests for the corpora that candidates learn from, by data; reads what identifies each source.

    Raises DataError, with its place in the spec, for what is not there.
    """
    names = dict.fromkeys(spec.data_name(spec.candidates[one]) for one in candidates)
    try:
        return {name: ingest_request(spec, name, plugins) for name in names}
    except EspalierError as error:
        problems = tuple(placed(problem, (), document) for problem in error.problems)
        raise type(error)(problems=problems, retryable=error.retryable) from error


def _examined(path: Path | str, overrides: Sequence[str]) -> tuple[Reading, Found]:
    reading = read_spec(Path(path), overrides=overrides)
    found = Found() if reading.spec is None else examine(reading.spec, reading.document, Plugins(), reading.broken)
    found.spec += reading.problems
    return reading, found


def _sound(reading: Reading, found: Found) -> Spec:
    found.refuse()
    assert reading.spec is not None, "nothing is wrong with it"
    return reading.spec
