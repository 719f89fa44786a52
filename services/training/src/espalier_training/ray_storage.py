"""Where Ray Train and Ray Tune write: in the home, or in the object store, which workers on every machine see."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from espalier_runtime import shelf
from espalier_runtime.job import Job
from espalier_sdk import DataError


@contextmanager
def ray_storage(job: Job, kind: str) -> Iterator[dict[str, Any]]:
    """Yields name and storage for Ray's `RunConfig`, and removes at the end what Ray wrote there."""
    store, name = job.workplace.store, f"{kind}-{uuid.uuid4().hex[:12]}"
    if store.local:
        folder = job.workplace.home / "ray"
        try:
            yield {"name": name, "storage_path": str(folder)}
        finally:
            shutil.rmtree(folder / name, ignore_errors=True)
        return
    filesystem, path = shelf.place(store, shelf.RAY)
    try:
        yield {"name": name, "storage_path": path, "storage_filesystem": filesystem}
    finally:
        with contextlib.suppress(DataError):  # `store gc` removes it later
            shelf.remove(store, f"{shelf.RAY}/{name}")
