"""`python -m espalier_pipeline.cluster.segment`: some stages of a submission, by the local executor, inside a RayJob.

Leaves in the store how it ended, which the driver reads.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from espalier_runtime import shelf
from espalier_runtime.ray_session import require_same_plugins
from espalier_runtime.store import Store
from espalier_sdk import PluginUse
from espalier_sdk.errors import DataError, EspalierError, ThresholdMissed

from espalier_pipeline.cluster.carried import packed
from espalier_pipeline.cluster.segments import bundle_path, outcome_path
from espalier_pipeline.commands.printing import print_problems
from espalier_pipeline.driver import run
from espalier_pipeline.packing import unbundle
from espalier_pipeline.places import Places
from espalier_pipeline.tables import render
from espalier_pipeline.view import PlainView

_LINES = 40  # of a log


def main(
    identity: str,
    sha256: str,
    submission: str,
    segment: str,
    attempt: int,
    only: str | None = None,
    candidate: str | None = None,
) -> None:
    """Does the stages and exits with their code."""
    store = Store.open(Places.of().store)
    with tempfile.TemporaryDirectory(prefix="espalier-segment-") as folder:
        try:
            outcome = _perform(store, identity, sha256, Path(folder), only=only, candidate=candidate)
        except EspalierError as error:
            print_problems(error.problems)
            _print_ends([problem.file for problem in error.problems if problem.file])
            problems = [problem.to_json() for problem in error.problems]
            outcome = {"exit_code": error.exit_code, "retryable": error.retryable, "errors": problems}
    text = json.dumps(outcome, default=str).encode()
    shelf.put(store, outcome_path(identity, submission, segment, attempt), [text])
    sys.exit(outcome["exit_code"])


def _perform(
    store: Store, identity: str, sha256: str, folder: Path, *, only: str | None, candidate: str | None
) -> dict[str, Any]:
    sent = folder / "sent.tar.gz"
    if not shelf.fetch(store, bundle_path(identity), sent, sha256=sha256):
        raise DataError("what was sent is not in the store", code="absent", file=store.uri, remedy="submit it again")
    work = folder / "work"
    request = unbundle(sent, work)
    require_same_plugins([PluginUse(**use) for use in request["plugins"]])
    result = run(
        work / request["spec"], only=only, candidate=candidate, overrides=request["overrides"], view=PlainView()
    )
    report, result.report = result.report, None  # its path is this pod's: the driver's log carries it
    print(render(result), flush=True)
    outcome = {"retryable": False, "result": result.document(), "report": packed(report) if report else None}
    if result.refusal:
        print_problems(result.refusal.problems)
        return {**outcome, "exit_code": result.refusal.exit_code}
    met = (result.objective() or {"met": True})["met"]
    return {**outcome, "exit_code": 0 if met else ThresholdMissed.exit_code}


def _print_ends(files: Sequence[str]) -> None:
    """Prints how the logs end that errors name: they lie in a pod that goes."""
    for path in map(Path, files):
        if path.suffix == ".log" and path.is_file():
            with path.open(encoding="utf-8", errors="replace") as lines:
                for line in deque(lines, maxlen=_LINES):
                    print(f"  {path.stem}: {line.rstrip()}", flush=True)


if __name__ == "__main__":
    typer.run(main)
