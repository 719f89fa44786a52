"""Files of a store that are no artifacts: what a submission brings, and what its parts leave for each other."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

import pyarrow.fs as pafs
from espalier_sdk.errors import DataError

from espalier_runtime.disk import store_errors
from espalier_runtime.store import Store

# Where machines have no lasting disk: what trainings and studies go on from, and what Ray writes meanwhile.
CHECKPOINTS, STUDIES, RAY = "checkpoints", "studies", "ray"
_CHUNK = 1 << 20


def put(store: Store, relative: str, chunks: Iterable[bytes]) -> None:
    """Writes a file; in a folder a reader sees all of it or nothing, elsewhere its reader compares the hash."""
    path = store._path(relative)
    with store_errors(store.uri):
        if not store.local:
            with store._fs.open_output_stream(path, compression=None) as stream:
                for chunk in chunks:
                    stream.write(chunk)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with temporary.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def get(store: Store, relative: str) -> bytes | None:
    """Returns a small file's content, or None where it is not there."""
    return store._bytes_or_none(relative)


def fetch(store: Store, relative: str, target: Path, *, sha256: str) -> bool:
    """Copies a file out of the store; returns False where it is not there, or not whole."""
    if not store._info(relative).is_file:
        return False
    digest = hashlib.sha256()
    with (
        store_errors(store.uri),
        store._fs.open_input_stream(store._path(relative), compression=None) as stream,
        target.open("wb") as file,
    ):
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest() == sha256


def folders(store: Store, relative: str) -> list[str]:
    """Returns the names of the folders in a folder."""
    found = store._list(relative)
    return [info.path.rsplit("/", 1)[-1] for info in found if info.type == pafs.FileType.Directory]


def place(store: Store, relative: str) -> tuple[pafs.FileSystem, str]:
    """Returns file system and path of a folder, for libraries that write by `pyarrow.fs` themselves."""
    return store._fs, store._path(relative)


def left_alone(store: Store, relative: str, *, seconds: float) -> list[str]:
    """Returns the folders in a folder of which no file has changed for some seconds."""
    newest: dict[str, float] = {}
    prefix = store._path(relative) + "/"
    for info in store._list(relative, recursive=True):
        if info.is_file and info.mtime is not None:
            name = info.path.removeprefix(prefix).partition("/")[0]
            newest[name] = max(newest.get(name, 0.0), info.mtime.timestamp())
    return sorted(f"{relative}/{name}" for name, at in newest.items() if time.time() - at > seconds)


def remove(store: Store, relative: str) -> None:
    """Removes a folder."""
    store._delete(relative)


def check_bytes(chunks: Iterable[bytes], *, sha256: str) -> Iterable[bytes]:
    """Yields chunks as they come; raises DataError at their end where they are not what was announced."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != sha256:
        raise DataError("the bytes that came are not those that were sent", code="damaged", remedy="send them again")
