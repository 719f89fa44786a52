"""The database of the endpoint: opening it, bringing its schema up to date, and sessions to read and to write.

SQLite writes wait for each other and are on disk when they return; Postgres commits synchronously.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from espalier_sdk.errors import DataError
from sqlalchemy import Connection, Engine, create_engine, event, make_url, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session

from espalier_serving.tables import Secret

DATABASE_VARIABLE = "ESPALIER_DATABASE_URL"  # so that a password need not stand in a command line, which all may read
HEAD = "0001"  # the newest migration, so that an up-to-date database opens without importing Alembic
UNIT_KEY = "unit_key"
_BUSY_MILLISECONDS = 5_000
_RETRY_SECONDS = 0.02
WRITE = {"espalier_write": True}  # the execution option of a transaction that writes
_PRIVATE = 0o700  # the file holds the key that units are hashed with
# Postgres: a commit that has returned is on disk, and nothing waits for a server that hangs.
_POSTGRES = {"options": "-c synchronous_commit=on -c statement_timeout=5000", "connect_timeout": 5}
_LOCK_NUMBER = 0x65737061  # Postgres advisory lock under which one process at a time migrates


@dataclass(frozen=True)
class Database:
    """An open database with an up-to-date schema."""

    engine: Engine
    unit_key: bytes

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yields a session for reading: one consistent view."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Yields a session for writing, committed at the end; it takes SQLite's write lock at its start."""
        with (
            Session(self.engine.execution_options(**WRITE), expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @property
    def identity(self) -> str:
        """Returns what tells this database from others, by whatever address it was opened."""
        return blake2b(b"identity", key=self.unit_key, digest_size=8).hexdigest()

    @property
    def single_writer(self) -> bool:
        """Returns whether only one gateway replica may write."""
        return self.engine.dialect.name == "sqlite"

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()


def open_database(url: str) -> Database:
    """Opens a database, makes or updates its schema; raises DataError where that cannot be done.

    A plain path stands for SQLite. Several processes may open one database at once.
    """
    parsed = _parse(url)
    try:
        engine = _engine(parsed)
        _migrate(engine)
        return Database(engine=engine, unit_key=_unit_key(engine))
    except (OSError, SQLAlchemyError, ImportError) as error:
        raise DataError(
            f"the database cannot be opened: {_first_line(error)}",
            code="database",
            given=parsed.render_as_string(hide_password=True),
            remedy=_remedy(parsed, error),
        ) from error


def absolute_url(url: str) -> str:
    """Returns a database's address as it means the same file in every process, whatever folder that works in."""
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database and parsed.database != ":memory:":
        parsed = parsed.set(database=str(Path(parsed.database).absolute()))
    return parsed.render_as_string(hide_password=False)


def is_sqlite(url: str) -> bool:
    """Returns whether an address names a SQLite file, which one gateway at a time may write."""
    return _parse(url).get_backend_name() == "sqlite"


def _parse(url: str) -> URL:
    if "://" not in url:
        return URL.create("sqlite", database=str(Path(url).absolute()))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise DataError(
            "the database has no readable address",
            code="database",
            given=url.split("@")[-1],
            accepted="a path, sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME",
        ) from error
    if parsed.drivername in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _engine(url: URL) -> Engine:
    try:
        if url.get_backend_name() != "sqlite":
            arguments = _POSTGRES if url.get_backend_name() == "postgresql" else {}
            return create_engine(url, pool_pre_ping=True, pool_size=5, max_overflow=10, connect_args=arguments)
        if url.database:
            Path(url.database).parent.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        engine = create_engine(url, connect_args={"timeout": _BUSY_MILLISECONDS / 1000, "check_same_thread": False})
    except NoSuchModuleError as error:
        raise DataError(
            f"there is no driver for {url.drivername!r}",
            code="database",
            given=url.drivername,
            accepted="sqlite or postgresql+psycopg",
        ) from error
    event.listen(engine, "connect", _on_sqlite_connect)
    event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _on_sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions: `_on_sqlite_begin` does
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
    _use_write_ahead_log(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _use_write_ahead_log(cursor: Any) -> None:
    # Changing the journal needs the file alone, and SQLite refuses at once when it is not: busy_timeout does not help.
    deadline = time.monotonic() + _BUSY_MILLISECONDS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)


def _on_sqlite_begin(connection: Connection) -> None:
    # A deferred transaction that turns to writing fails at once when another has written: busy_timeout does not help.
    write = connection.get_execution_options().get("espalier_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _migrate(engine: Engine) -> None:
    with engine.connect() as connection:
        if _version(connection) == HEAD:
            return
    with engine.execution_options(**WRITE).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL statement_timeout = 0"))  # another process may migrate for longer
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK_NUMBER})
        if _version(connection) != HEAD:
            upgrade(connection)


def upgrade(connection: Connection) -> None:
    """Runs all migrations that a database lacks, in the transaction of the connection."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "espalier_serving:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise DataError(
            f"the database was made by another version of Espalier: {_first_line(error)}",
            code="database",
            remedy="use that version or a newer one, or another database",
        ) from error


def _version(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _unit_key(engine: Engine) -> bytes:
    query = select(Secret.value).where(Secret.name == UNIT_KEY)
    with Session(engine) as session:
        found = session.scalar(query)
    if found is None:
        found = _make_unit_key(engine)
    return bytes.fromhex(found)


def _make_unit_key(engine: Engine) -> str:
    # The first one to write wins: a second key would hash a unit into another unit.
    statement = text("INSERT INTO secrets (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING")
    with engine.execution_options(**WRITE).begin() as connection:
        connection.execute(statement, {"name": UNIT_KEY, "value": secrets.token_hex(32)})
        return str(connection.execute(select(Secret.value).where(Secret.name == UNIT_KEY)).scalar_one())


def _first_line(error: BaseException) -> str:
    origin = error.orig if isinstance(error, DatabaseError) and error.orig is not None else error
    return str(origin).strip().split("\n")[0] or type(origin).__name__


def _remedy(url: URL, error: BaseException) -> str:
    if isinstance(error, ImportError):
        return "install the driver: psycopg[binary]"
    if url.get_backend_name() == "sqlite":
        return "name a file in a folder that can be written, and that is a database of Espalier"
    return "check that the server runs, and its address, user and password"
