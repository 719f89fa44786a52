"""`python -m espalier_pipeline.cluster.receive IDENTITY SHA256 [BYTES]`: takes what a user sends into the store.

Without a number of bytes it only says whether they are there.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from espalier_runtime import shelf
from espalier_runtime.store import Store
from espalier_sdk.errors import DataError, EspalierError

from espalier_pipeline.cluster.segments import bundle_path
from espalier_pipeline.commands.printing import print_problems
from espalier_pipeline.places import Places

RECEIVED = "received"
_CHUNK = 1 << 16


def main(identity: str, sha256: str, size: int | None = None) -> int:
    """Reads that many bytes from standard input, says so when they are in the store, and returns the exit code."""
    try:
        store = Store.open(Places.of().store)
        if size is not None:
            shelf.put(store, bundle_path(identity), shelf.check_bytes(_read(size), sha256=sha256))
        elif not _there(store, identity, sha256):
            print("not there")
            return 0
    except EspalierError as error:
        print_problems(error.problems)
        return error.exit_code
    print(RECEIVED, flush=True)
    return 0


def _there(store: Store, identity: str, sha256: str) -> bool:
    with tempfile.NamedTemporaryFile() as file:
        return shelf.fetch(store, bundle_path(identity), Path(file.name), sha256=sha256)


def _read(size: int) -> Iterator[bytes]:
    left = size
    while left:
        chunk = sys.stdin.buffer.read1(min(left, _CHUNK))
        if not chunk:
            raise DataError("the sender went away", code="interrupted", remedy="submit it again")
        left -= len(chunk)
        yield chunk


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:4])))
