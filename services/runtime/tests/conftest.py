"""Stores for the tests: on a folder, and on a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from espalier_runtime.store import Store
from espalier_runtime.testing import s3_bucket, s3_environment, s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    with s3_server() as endpoint:
        if endpoint is None:
            pytest.skip("moto's server is not installed: the store is not tried on S3")
        yield endpoint


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.servers)])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path / "cache"))
    if request.param == "folder":
        return Store.open(str(tmp_path / "store"))
    endpoint = request.getfixturevalue("s3")
    for name, value in s3_environment(endpoint).items():
        monkeypatch.setenv(name, value)
    return Store.open(f"{s3_bucket(endpoint)}/store")


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    """A store on a folder, for what does not depend on the file system."""
    return Store.open(str(tmp_path / "store"))
