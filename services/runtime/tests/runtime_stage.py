"""A process that performs one request, slowly: the tests start it twice at once, and kill it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from espalier_runtime.job import Job, Workplace, perform
from espalier_runtime.plugins import Plugins
from espalier_runtime.ray_session import Session
from espalier_runtime.request import StageRequest
from espalier_runtime.specs import Spec
from espalier_runtime.store import Store

SPEC = {
    "name": "tiny",
    "objective": {"task": "classification", "metric": "f1"},
    "data": {"tickets": {"sources": ["files"]}},
    "candidates": {"one": {"strategy": "from-scratch"}},
}


def request(**changes: Any) -> StageRequest:
    """Returns a request whose code is the runtime's own."""
    fields: dict[str, Any] = {
        "stage": "ingest",
        "service": "espalier-runtime",
        "kind": "corpus",
        "name": "tickets",
        "what": {"rows": 3},
    }
    return StageRequest(**fields | changes)


def workplace(folder: Path) -> Workplace:
    """Returns a store and a home below a folder."""
    store = Store.open(str(folder / "store"))
    return Workplace(Spec.model_validate(SPEC), store, folder / "home", Plugins(), Session())


def work(job: Job) -> dict[str, Any]:
    """Writes two files with a pause between, and notes that it was there."""
    with Path(os.environ["WORKED"]).open("a") as log:
        log.write(f"{os.getpid()}\n")
    (job.out / "first.txt").write_text("first")
    time.sleep(float(os.environ.get("PAUSE", "0")))
    (job.out / "second.txt").write_text("second")
    return {"rows": 3}


if __name__ == "__main__":
    manifest, cached = perform(request(), work, workplace(Path(sys.argv[1])))
    print(manifest.ref(), cached)
