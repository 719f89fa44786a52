"""The list of files of an artifact that has many: a Parquet file beside them, and the hash that names it.

Knows nothing about where artifacts are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from espalier_sdk.artifacts import FileEntry, FileList, digest_of

MANY_FILES = 1000  # above it, a manifest with a line for each file would be larger than some artifacts
_COLUMNS = ("path", "size_bytes", "sha256")


def list_of(entries: Sequence[FileEntry]) -> FileList:
    """Returns count, size and root hash; the hash is over paths, sizes and hashes, not over the Parquet bytes."""
    rows = [[getattr(entry, name) for name in _COLUMNS] for entry in entries]
    return FileList(count=len(rows), size_bytes=sum(entry.size_bytes for entry in entries), sha256=digest_of(rows))


def to_parquet(entries: Sequence[FileEntry]) -> bytes:
    """Returns the list as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: [getattr(entry, name) for entry in entries] for name in _COLUMNS}), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def from_parquet(content: bytes, wanted: FileList) -> tuple[FileEntry, ...] | None:
    """Reads the list back; None where it is not the one that the manifest names."""
    try:
        rows = pq.read_table(pa.BufferReader(content)).to_pylist()
        entries = tuple(FileEntry(**row) for row in rows)
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return None
    return entries if list_of(entries) == wanted else None
