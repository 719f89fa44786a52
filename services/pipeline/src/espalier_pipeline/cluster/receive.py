"""`python -m espalier_pipeline.cluster.receive IDENTITY SHA256 BYTES`: takes what a user sends into the store."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from espalier_runtime import shelf
from espalier_runtime.store import Store
from espalier_sdk.errors import DataError, EspalierError

from espalier_pipeline.cluster.segments import bundle_path
from espalier_pipeline.commands.printing import print_problems
from espalier_pipeline.places import Places

RECEIVED = "received"
_CHUNK = 1 << 16


def main(identity: str, sha256: str, size: int) -> int:
    """Reads that many bytes from standard input, says so when they are in the store, and returns the exit code."""
    try:
        store = Store.open(Places.of().store)
        shelf.put(store, bundle_path(identity), shelf.check_bytes(_read(size), sha256=sha256))
    except EspalierError as error:
        print_problems(error.problems)
        return error.exit_code
    print(RECEIVED, flush=True)
    return 0


def _read(size: int) -> Iterator[bytes]:
    left = size
    while left:
        chunk = sys.stdin.buffer.read1(min(left, _CHUNK))
        if not chunk:
            raise DataError("the sender went away", code="interrupted", remedy="submit it again")
        left -= len(chunk)
        yield chunk


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
