"""`python -m espalier_pipeline.cluster.segment`: some stages of a submission, by the local executor, inside a RayJob.

Leaves in the store how it ended, which the driver reads.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import typer
from espalier_runtime import shelf
from espalier_runtime.ray_session import require_same_plugins
from espalier_runtime.store import Store
from espalier_sdk import PluginUse
from espalier_sdk.errors import DataError, EspalierError, ThresholdMissed

from espalier_pipeline.cluster.segments import bundle_path, outcome_path
from espalier_pipeline.commands.printing import print_problems
from espalier_pipeline.driver import run
from espalier_pipeline.packing import unbundle
from espalier_pipeline.places import Places
from espalier_pipeline.tables import render
from espalier_pipeline.view import PlainView


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
    print(render(result), flush=True)
    document = result.document()
    if result.refusal:
        print_problems(result.refusal.problems)
        return {"exit_code": result.refusal.exit_code, "retryable": False, "result": document}
    met = (result.objective() or {"met": True})["met"]
    return {"exit_code": 0 if met else ThresholdMissed.exit_code, "retryable": False, "result": document}


if __name__ == "__main__":
    typer.run(main)
