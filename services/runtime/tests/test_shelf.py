"""Files of a store that are no artifacts: whole or not there, checked by who reads them, swept when nobody does."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from espalier_runtime import shelf
from espalier_runtime.store import Store
from espalier_sdk import DataError

SENT = gzip.compress(b"spec" * 1000, mtime=0)  # pyarrow would unpack it, by its name
HASH = hashlib.sha256(SENT).hexdigest()


def test_what_was_put_is_fetched_and_compared(store: Store, tmp_path: Path) -> None:
    assert shelf.get(store, "submissions/a/x.gz") is None
    assert not shelf.fetch(store, "submissions/a/x.gz", tmp_path / "out", sha256=HASH)
    shelf.put(store, "submissions/a/x.gz", [SENT[:10], SENT[10:]])
    assert shelf.get(store, "submissions/a/x.gz") == SENT
    assert shelf.fetch(store, "submissions/a/x.gz", tmp_path / "out", sha256=HASH)
    assert (tmp_path / "out").read_bytes() == SENT
    assert not shelf.fetch(store, "submissions/a/x.gz", tmp_path / "out", sha256="0" * 64)


def test_half_of_a_file_is_none(folder_store: Store, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield SENT[:10]
        raise DataError("the sender went away")

    with pytest.raises(DataError, match="went away"):
        shelf.put(folder_store, "submissions/a/x.gz", broken())
    with pytest.raises(DataError, match="not those that were sent"):
        shelf.put(folder_store, "submissions/a/x.gz", shelf.check_bytes([SENT, b"more"], sha256=HASH))
    assert shelf.get(folder_store, "submissions/a/x.gz") is None
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_what_nobody_has_touched_is_found_and_removed(folder_store: Store, tmp_path: Path) -> None:
    for name in ("old/sent", "old/1/data.json", "young/sent", "young/1/data.json"):
        shelf.put(folder_store, f"submissions/{name}", [SENT])
    for path in (tmp_path / "store" / "submissions").rglob("*"):
        if path.is_file() and "young/1" not in path.as_posix():
            os.utime(path, (1, 1))
    assert shelf.left_alone(folder_store, "submissions", seconds=3600) == ["submissions/old"]
    shelf.remove(folder_store, "submissions/old")
    assert shelf.get(folder_store, "submissions/old/sent") is None
    assert shelf.get(folder_store, "submissions/young/sent") == SENT
