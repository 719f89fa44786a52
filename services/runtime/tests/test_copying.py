"""Copying an artifact to another store: all that its digest covers, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from espalier_runtime.copying import copy_artifact
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef, DataError

REQUEST = "cd" * 32


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Store, Store]:
    return Store.open(str(tmp_path / "from")), Store.open(str(tmp_path / "to"))


def published(store: Store) -> ArtifactRef:
    attempt = store.begin(REQUEST)
    (attempt.folder / "deep").mkdir()
    (attempt.folder / "deep" / "model.safetensors").write_bytes(b"weights")
    fields = {"metrics": {"rows": 3}, "what": {"seed": 1}, "provenance": {"request": REQUEST, "commit": "abc"}}
    return attempt.publish(kind="model", name="scratch", **fields).ref()


def test_a_copy_has_the_reference_the_files_and_the_request_of_the_original(stores: tuple[Store, Store]) -> None:
    source, target = stores
    ref = published(source)
    assert copy_artifact(ref, source=source, target=target)
    opened = target.open_artifact(ref)
    assert (opened.folder / "deep" / "model.safetensors").read_bytes() == b"weights"
    assert opened.manifest.metrics == {"rows": 3}
    assert opened.manifest.provenance["commit"] == "abc"
    assert target.find_request(REQUEST) == ref
    assert not copy_artifact(ref, source=source, target=target)
    assert list(target.abandoned(older_than_seconds=-1)) == []


def test_a_damaged_original_is_not_copied(stores: tuple[Store, Store], tmp_path: Path) -> None:
    source, target = stores
    ref = published(source)
    (weights,) = (tmp_path / "from").rglob("model.safetensors")
    weights.write_bytes(b"weight!")
    with pytest.raises(DataError, match="differs from the manifest"):
        copy_artifact(ref, source=source, target=target)
    assert not target.has(ref)
