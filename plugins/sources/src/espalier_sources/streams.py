"""Bytes of a file, decompressed as they come; what is cut short or damaged is told with its remedy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from espalier_sdk.errors import DataError

from espalier_sources.finding import FoundFile, unreadable

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 4 * 2**20


class Bytes:
    """The bytes of one file, in blocks."""

    def __init__(self, file: FoundFile, stream: pa.NativeFile) -> None:
        self._file, self._stream = file, stream

    def read(self, size: int = BLOCK_BYTES) -> bytes:
        """Returns the next bytes, fewer only at the end; DataError where the file is cut short or damaged."""
        blocks: list[bytes] = []
        while size:
            try:
                block = self._stream.read(size)
            except OSError as error:
                raise _damaged(self._file, error) from error
            if not block:
                break
            blocks.append(block)
            size -= len(block)
        return b"".join(blocks)

    def rest(self) -> bytes:
        """Returns all that is left."""
        blocks: list[bytes] = []
        while block := self.read():
            blocks.append(block)
        return b"".join(blocks)


@contextmanager
def open_bytes(file: FoundFile) -> Iterator[Bytes]:
    """Opens a file for reading; DataError where that cannot be done."""
    import pyarrow as pa

    try:
        raw: Any = pa.OSFile(file.path, "rb")
    except OSError as error:
        raise unreadable(file.path, error) from error
    with raw:
        if file.compression is None:
            yield Bytes(file, raw)
        else:
            with pa.CompressedInputStream(raw, file.compression) as stream:
                yield Bytes(file, stream)


def content_sha256(path: str) -> str:
    """Returns the hash of a file's bytes as they lie on the disk."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


def _damaged(file: FoundFile, error: OSError) -> DataError:
    text = str(error)
    if file.compression is None:
        return unreadable(file.path, error)
    if "runcated" in text:
        return DataError(
            f"the {file.compression} stream is cut short",
            code="truncated_file",
            file=file.path,
            remedy="fetch or write the file again",
        )
    return DataError(
        f"this is no whole {file.compression} stream: {text}",
        code="damaged_file",
        file=file.path,
        remedy="fetch or write the file again, or correct its ending",
    )
