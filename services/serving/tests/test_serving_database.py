"""Opening a database: its schema comes from the migrations, fast, safely and only once."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from espalier_sdk.errors import DataError
from espalier_serving.database import HEAD, Database, _engine, absolute_url, open_database
from espalier_serving.tables import Table
from sqlalchemy import create_engine, event, make_url, text


def test_the_migrations_make_the_schema_of_the_models(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Table.metadata) == []


def test_the_migrations_make_the_same_columns_and_indexes_as_the_models_word_for_word(database: Database) -> None:
    models = create_engine("sqlite://")
    Table.metadata.create_all(models)

    def schema(engine: object) -> dict[str, list[str]]:
        with engine.connect() as connection:  # type: ignore[attr-defined]
            rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
            return {
                name: sorted(line.strip().rstrip(", ") for line in sql.splitlines())
                for name, sql in rows
                if name != "alembic_version"
            }

    made, wanted = schema(database.engine), schema(models)
    assert len(wanted) > 15
    assert made == wanted


def test_the_head_that_needs_no_alembic_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", "espalier_serving:migrations")
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_a_fresh_database_opens_in_less_than_a_second(tmp_path: Path) -> None:
    begun = time.perf_counter()
    open_database(str(tmp_path / "fresh.db")).close()
    assert time.perf_counter() - begun < 1.0


def test_a_database_that_is_up_to_date_opens_without_alembic(url: str, database: Database) -> None:
    code = (
        "import sys; from espalier_serving.database import open_database; "
        f"open_database({url!r}); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_opened_again_it_has_the_same_unit_key_and_another_database_has_another(url: str, tmp_path: Path) -> None:
    first = open_database(url)
    assert open_database(url).unit_key == first.unit_key
    assert len(first.unit_key) == 32
    assert open_database(str(tmp_path / "other.db")).unit_key != first.unit_key


def test_two_processes_may_open_a_fresh_database_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "shared.db")
    code = f"from espalier_serving.database import open_database; print(open_database({path!r}).unit_key.hex())"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert len({output for output, _ in outputs}) == 1


def test_a_database_that_another_is_making_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")  # against this lock SQLite refuses a change of journal without waiting
    timer = threading.Timer(0.3, other.execute, ["COMMIT"])
    timer.start()
    with contextlib.closing(open_database(str(path))) as database:
        assert database.unit_key
    timer.join()
    other.close()


def test_sqlite_writes_ahead_and_is_on_disk_when_a_commit_returns(database: Database) -> None:
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 5000


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, not tables, and there are some of them")
    with pytest.raises(DataError, match="cannot be opened: file is not a database"):
        open_database(str(path))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be opened") as caught:
        open_database(f"sqlite:///{tmp_path}/file/endpoint.db")
    assert caught.value.exit_code == 4
    assert caught.value.problems[0].remedy


def test_an_unknown_kind_of_database_is_refused_with_what_is_accepted() -> None:
    with pytest.raises(DataError, match="there is no driver for 'mongodb'"):
        open_database("mongodb://somewhere/x")


def test_a_password_does_not_show_in_the_error() -> None:
    with pytest.raises(DataError) as caught:
        open_database("postgresql+psycopg://someone:hunter2@127.0.0.1:1/none")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(caught.value.problems[0].to_json())


@pytest.mark.parametrize("given", ["e.db", "sqlite:///e.db", "sqlite:///folder/../e.db"])
def test_a_relative_path_means_one_file_in_every_process(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    address = absolute_url(given)
    open_database(given).close()
    monkeypatch.chdir("/")
    first = open_database(address)
    assert first.identity == open_database(f"sqlite:///{tmp_path / 'e.db'}").identity


def test_an_address_keeps_its_password() -> None:
    assert absolute_url("postgresql://me:secret@db/x") == "postgresql+psycopg://me:secret@db/x"


def test_postgres_commits_to_disk_and_waits_for_nothing_that_hangs() -> None:
    pytest.importorskip("psycopg")
    engine = _engine(make_url("postgresql+psycopg://me@127.0.0.1:1/none"))
    given: dict[str, object] = {}

    def keep(_dialect: object, _record: object, _arguments: object, named: dict[str, object]) -> None:
        given.update(named)
        raise OSError("no further")

    event.listen(engine, "do_connect", keep)
    with pytest.raises(OSError, match="no further"):
        engine.connect()
    assert given["options"] == "-c synchronous_commit=on -c statement_timeout=5000"
    assert given["connect_timeout"] == 5


def test_a_database_of_a_newer_version_is_refused(url: str, database: Database, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "endpoint.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DataError, match="another version of Espalier"):
        open_database(url)
