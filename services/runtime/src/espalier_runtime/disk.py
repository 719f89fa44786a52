"""Files on a disk or an object store: what their errors mean, and whether they are those of a manifest.

Knows nothing about artifacts beside their list of files.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path

from espalier_sdk.artifacts import FileEntry
from espalier_sdk.errors import DataError

HASH_PROBLEM = "differs from the manifest's SHA-256"


def file_entries(folder: Path) -> Iterator[FileEntry]:
    """Yields every file below a folder with size and SHA-256, sorted by its path."""
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        if path.is_file():
            digest, size = _sha256(path)
            yield FileEntry(path=path.relative_to(folder).as_posix(), size_bytes=size, sha256=digest)


def _sha256(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return digest.hexdigest(), file.tell()


def difference(path: Path, entry: FileEntry) -> str | None:
    """Returns how a file differs from its entry, in words, or None."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != entry.size_bytes:
        return size_problem(size, entry)
    return None if _sha256(path)[0] == entry.sha256 else HASH_PROBLEM


def size_problem(size: int, entry: FileEntry) -> str:
    """Returns the words for a file of another size."""
    return f"has {size} bytes, the manifest says {entry.size_bytes}"


class store_errors:
    """Turns what the disk or the object store answers into one DataError with a remedy."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, OSError):
            raise disk_error(error, self._place) from error


def disk_error(error: OSError, place: str) -> DataError:
    """Returns the error that a user understands for what a disk or an object store answered."""
    text = str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text
    if full:
        return DataError("the disk is full", code="disk_full", file=place, remedy="free space, then run again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) or "ACCESS_DENIED" in text:
        return DataError(
            f"cannot be written or read: {error.strerror or text}",
            code="store_not_writable",
            file=place,
            remedy="give this user the right to it, or choose another --store",
        )
    return DataError(
        f"{error.strerror or text}",
        code="store",
        file=str(error.filename or place),
        remedy="check the path and that it can be read and written",
    )
