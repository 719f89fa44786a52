"""A real Postgres server in a process of its own, for tests, where its programs are installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_USER = "postgres"  # the server refuses to run as root
_OFTEN = "/usr/lib/postgresql/*/bin"


def programs() -> Path | None:
    """Returns the folder of `initdb` and `pg_ctl`, or None where Postgres is not installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/").glob(_OFTEN.lstrip("/")), reverse=True)
    return next((one for one in folders if (one / "pg_ctl").exists()), None)


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Yields the address of a server whose data lie in a folder, without a database's name; stops it at the end."""
    binaries = programs()
    assert binaries is not None, "the caller asks `programs` first"
    account: dict[str, str] = {}
    if os.geteuid() == 0:
        account = {"user": _USER, "group": _USER}
        shutil.chown(folder, _USER, _USER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [str(binaries / program), "-D", str(data), *arguments],
            check=True,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=120,
            **account,  # type: ignore[call-overload]
        )

    run("initdb", "--username", _USER, "--auth", "trust", "--no-sync", "--encoding", "UTF8", "--locale", "C")
    options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
    run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql+psycopg://{_USER}@127.0.0.1:{port}"
    finally:
        run("pg_ctl", "-m", "immediate", "stop")
