"""Committed checkpoints: where a candidate's training can go on after its process died.

    <folder>/checkpoint-<step>/committed.json    written last, with the SHA-256 of every file: its presence counts

Only what this platform wrote is opened again: each file is compared before the trainer reads it. Knows nothing of
models.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from espalier_runtime.disk import difference, file_entries
from espalier_sdk.artifacts import FileEntry

COMMITTED = "committed.json"
KEPT = 2  # one may be found damaged
_PREFIX = "checkpoint-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A committed checkpoint: its folder, its optimizer step, and the seconds of training that led to it."""

    folder: Path
    step: int
    seconds: float


def commit(folder: Path, *, seconds: float) -> None:
    """Makes a checkpoint that is written whole count, and removes all but the newest two."""
    files = [entry.model_dump() for entry in file_entries(folder) if entry.path != COMMITTED]
    temporary = folder / f"{COMMITTED}.part"
    temporary.write_text(json.dumps({"seconds": seconds, "files": files}), encoding="utf-8")
    temporary.replace(folder / COMMITTED)
    for old in _committed(folder.parent)[KEPT:]:
        (old / COMMITTED).unlink()  # first, so that a half-removed one does not count
        shutil.rmtree(old)


def newest(folder: Path) -> Checkpoint | None:
    """Returns the newest checkpoint whose files are those that were written; what is half-written is removed."""
    for path in folder.glob(f"{_PREFIX}*"):
        if not (path / COMMITTED).is_file():
            shutil.rmtree(path)
    for path in _committed(folder):
        record = json.loads((path / COMMITTED).read_text(encoding="utf-8"))
        entries = [FileEntry.model_validate(entry) for entry in record["files"]]
        if not any(difference(path / entry.path, entry) for entry in entries):
            return Checkpoint(path, _step(path), float(record["seconds"]))
        shutil.rmtree(path)
    return None


def _committed(folder: Path) -> list[Path]:
    """Returns committed checkpoints, the newest first."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if (path / COMMITTED).is_file()]
    return sorted(found, key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))
