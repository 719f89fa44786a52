"""What the tests of the endpoint share: a fresh database for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from espalier_serving.database import Database, open_database


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'endpoint.db'}"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = open_database(url)
    yield opened
    opened.close()
