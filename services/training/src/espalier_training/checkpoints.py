"""Committed checkpoints: where a candidate's training can go on after its process died.

    <folder>/checkpoint-<step>/committed.json    written last: whose it is, and the SHA-256 of every file; it counts

Only what this platform wrote is opened again: each file is compared before the trainer reads it. Knows nothing of
models.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier_runtime.disk import difference, file_entries
from espalier_sdk import DataError, SpecError
from espalier_sdk.artifacts import FileEntry

COMMITTED = "committed.json"
KEPT = 2  # one may be found damaged
PREFIX = "checkpoint-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A committed checkpoint: its folder, its optimizer step, and the seconds of training that led to it."""

    folder: Path
    step: int
    seconds: float
    world: Mapping[str, int]  # workers and ZeRO stage that wrote it


def commit(
    folder: Path, *, seconds: float, request: str, world: Mapping[str, int], files: Sequence[FileEntry] | None = None
) -> None:
    """Makes a checkpoint that is written whole count, and removes all but the newest two.

    `files` are those of all machines, where they have no disk in common.
    """
    if files is None:
        files = [entry for entry in file_entries(folder) if entry.path != COMMITTED]
    told = [entry.model_dump() for entry in files]
    record = {"request": request, "seconds": seconds, "world": dict(world), "files": told}
    temporary = folder / f"{COMMITTED}.part"
    temporary.write_text(json.dumps(record), encoding="utf-8")
    temporary.replace(folder / COMMITTED)
    for old in _committed(folder.parent)[KEPT:]:
        (old / COMMITTED).unlink()  # first, so that a half-removed one does not count
        shutil.rmtree(old)


def remove_old(folder: Path) -> None:
    """Removes all but the newest two on a machine of workers that commit nothing: no record lies beside their shards.

    Call it once the newest one is committed elsewhere.
    """
    for old in sorted(folder.glob(f"{PREFIX}*"), key=lambda path: step_of(path.name), reverse=True)[KEPT:]:
        shutil.rmtree(old)


def newest(folder: Path) -> Checkpoint | None:
    """Returns the newest checkpoint whose files are those that were written; what is half-written is removed."""
    for path in folder.glob(f"{PREFIX}*"):
        if not (path / COMMITTED).is_file():
            shutil.rmtree(path)
    for path in _committed(folder):
        if not _damage(path, _record(path)):
            return opened(path)
        shutil.rmtree(path)
    return None


def opened(folder: Path) -> Checkpoint:
    """Returns a committed checkpoint as its record tells it."""
    record = _record(folder)
    return Checkpoint(folder, step_of(folder.name), float(record["seconds"]), record["world"])


def step_of(name: str) -> int:
    """Returns the optimizer step that a checkpoint is named by."""
    return int(name.removeprefix(PREFIX))


def bring(source: Path, folder: Path, *, request: str) -> None:
    """Copies a committed checkpoint among those of a request, as the one to go on from: newer ones there go.

    Raises DataError where `source` is none or damaged, SpecError where another request's training wrote it.
    """
    if not (source / COMMITTED).is_file():
        raise DataError(
            "is no committed checkpoint", file=str(source), remedy=f"name a folder checkpoint-STEP with {COMMITTED}"
        )
    record, target = _record(source), folder / source.name
    if record["request"] != request:
        raise SpecError(
            f"{source} is a checkpoint of another request: what it would go on with is not what this spec asks for",
            code="another_request",
            given=record["request"][:12],
            accepted=request[:12],
            remedy="use the spec, data and versions that it was made with; `where` alone may differ",
        )
    if damaged := _damage(source, record):
        raise DataError(
            "differs from what was committed", file=str(source / damaged), remedy="name an older checkpoint"
        )
    if source.resolve() != target.resolve():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, part := folder / f"{source.name}.part", dirs_exist_ok=True)
        part.replace(target)
    for newer in _committed(folder):
        if step_of(newer.name) > step_of(target.name):
            shutil.rmtree(newer)


def _record(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / COMMITTED).read_text(encoding="utf-8"))
    return found


def _damage(path: Path, record: Mapping[str, Any]) -> str | None:
    """Returns the first file that is not what was committed."""
    entries = [FileEntry.model_validate(entry) for entry in record["files"]]
    return next((entry.path for entry in entries if difference(path / entry.path, entry)), None)


def _committed(folder: Path) -> list[Path]:
    """Returns committed checkpoints, the newest first."""
    found = [path for path in folder.glob(f"{PREFIX}*") if (path / COMMITTED).is_file()]
    return sorted(found, key=lambda path: step_of(path.name), reverse=True)
