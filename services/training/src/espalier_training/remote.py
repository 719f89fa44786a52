"""Committed checkpoints in an object store: for workers that have no disk in common, or one that ends with their pod.

    <store>/checkpoints/<request>/checkpoint-<step>/    the files of all workers; committed.json comes last

What lies there counts, and a machine's folder holds a copy. Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espalier_runtime import shelf
from espalier_runtime.disk import difference, file_entries
from espalier_runtime.store import Store
from espalier_sdk import DataError
from espalier_sdk.artifacts import FileEntry

from espalier_training.checkpoints import COMMITTED, KEPT, PREFIX, Checkpoint, opened, step_of
from espalier_training.job import PROGRESS, TrainJob

_CHUNK = 1 << 20


class RemoteCheckpoints:
    """The checkpoints of one request in an object store."""

    def __init__(self, store: Store, request: str) -> None:
        self._store, self._at = store, f"{shelf.CHECKPOINTS}/{request}"

    @classmethod
    def of(cls, job: TrainJob) -> RemoteCheckpoints | None:
        """Returns those of a job, or None: where the store is a folder, checkpoints lie in the home."""
        store = Store.open(job.store)
        return None if job.checkpoints is None or store.local else cls(store, job.request)

    def push(self, folder: Path) -> list[FileEntry]:
        """Copies what this machine's workers wrote of a checkpoint into the store; returns those files."""
        files = [entry for entry in file_entries(folder) if entry.path != COMMITTED]
        with _lost():
            for entry in files:
                shelf.put(self._store, f"{self._at}/{folder.name}/{entry.path}", _chunks(folder / entry.path))
        return files

    def commit(self, folder: Path) -> None:
        """Makes a pushed checkpoint count, once it is committed on this machine, and removes all but the newest two."""
        with _lost():
            shelf.put(self._store, f"{self._at}/{folder.name}/{COMMITTED}", _chunks(folder / COMMITTED))
            for old in self._names()[KEPT:]:
                shelf.remove(self._store, f"{self._at}/{old}")

    def adopt(self, folder: Path) -> None:
        """Puts a checkpoint that is committed on this machine in the place of all that are there."""
        for name in self._names():
            shelf.remove(self._store, f"{self._at}/{name}")
        self.push(folder)
        self.commit(folder)

    def newest(self, home: Path) -> Checkpoint | None:
        """Returns a copy of the newest whole checkpoint, below `home`, where no other stays.

        What is damaged, or was never committed, is removed from the store.
        """
        for name in self._names():
            if found := self.pull(home / name):
                return found
            shelf.remove(self._store, f"{self._at}/{name}")
        _remove(home.glob(f"{PREFIX}*"))
        return None

    def pull(self, folder: Path) -> Checkpoint | None:
        """Makes a folder of this machine the copy of a checkpoint and removes others; None where it is not whole."""
        with _lost():
            record = shelf.get(self._store, f"{self._at}/{folder.name}/{COMMITTED}")
            if record is None:
                return None
            _remove(other for other in folder.parent.glob(f"{PREFIX}*") if other != folder)
            for entry in map(FileEntry.model_validate, json.loads(record)["files"]):
                target, there = folder / entry.path, f"{self._at}/{folder.name}/{entry.path}"
                target.parent.mkdir(parents=True, exist_ok=True)
                if difference(target, entry) and not shelf.fetch(self._store, there, target, sha256=entry.sha256):
                    return None
            (folder / COMMITTED).write_bytes(record)
        return opened(folder)

    def tell(self, event: Mapping[str, Any]) -> None:
        """Leaves how far training is, for a stage that does not see the worker's disk; a lost message is no harm."""
        with contextlib.suppress(DataError):
            shelf.put(self._store, f"{self._at}/{PROGRESS}", [json.dumps(event).encode()])

    def told(self) -> str:
        """Returns what was left, or nothing."""
        with contextlib.suppress(DataError):
            return (shelf.get(self._store, f"{self._at}/{PROGRESS}") or b"").decode()
        return ""

    def remove(self) -> None:
        """Removes all of them."""
        with _lost():
            shelf.remove(self._store, self._at)

    def _names(self) -> list[str]:
        """Returns what is there, committed or not, the newest first."""
        with _lost():
            found = [name for name in shelf.folders(self._store, self._at) if name.startswith(PREFIX)]
        return sorted(found, key=step_of, reverse=True)


def forget(folder: Path, store: Store, request: str) -> None:
    """Removes a training's checkpoints, its model being published; what cannot be removed now, `store gc` removes."""
    shutil.rmtree(folder, ignore_errors=True)
    if not store.local:
        with contextlib.suppress(ConnectionError):
            RemoteCheckpoints(store, request).remove()


def first_of_machine() -> bool:
    """Tells whether this worker is the one of its machine that copies files; torch numbers them."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder)


@contextmanager
def _lost() -> Iterator[None]:
    """Turns the store's refusal into a worker's death: others may wait for it, and Ray replaces all of them."""
    try:
        yield
    except DataError as error:
        raise ConnectionError(f"checkpoints cannot be kept: {error}") from error


def _chunks(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
