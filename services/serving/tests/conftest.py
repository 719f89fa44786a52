"""What the tests of the endpoint share: a fresh database each; those marked `databases` run on each kind of one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from espalier_serving.database import Database, open_database
from espalier_serving.testing.postgres import postgres, programs
from sqlalchemy import create_engine


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "url" in metafunc.fixturenames and metafunc.definition.get_closest_marker("databases"):
        on_postgres = pytest.param("postgres", marks=pytest.mark.servers)
        metafunc.parametrize("url", ["sqlite", on_postgres], indirect=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A server with a template that has the schema, so that a fresh database is a copy."""
    if programs() is None:
        pytest.skip("Postgres is not installed: the endpoint is tried on SQLite alone")
    with tempfile.TemporaryDirectory(prefix="espalier-postgres-") as folder, postgres(Path(folder)) as server:
        with create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("CREATE DATABASE schema_made")
        open_database(f"{server}/schema_made").close()
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that has the schema, so that a fresh database is a copy."""
    path = tmp_path_factory.mktemp("sqlite") / "schema_made.db"
    open_database(str(path)).close()
    return path


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if getattr(request, "param", "sqlite") == "sqlite":
        path = tmp_path / "endpoint.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgres_server")
    admin = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE one TEMPLATE schema_made")
        yield f"{server}/one"
        connection.exec_driver_sql("DROP DATABASE one WITH (FORCE)")
    admin.dispose()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = open_database(url)
    yield opened
    opened.close()
