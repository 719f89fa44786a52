"""The program: what it refuses before anything is started, and the key it makes without a server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from espalier_serving.app import main
from espalier_serving.database import open_database
from espalier_serving.keys import create_key, key_id_of, known_keys, revoke_keys_of
from espalier_serving.starting import only_server_of


def test_a_port_in_use_is_refused_with_exit_code_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["--database", str(tmp_path / "e.db"), "--home", str(tmp_path), "--port", port]) == 5
    error = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in error and "in use" in error and "--port" in error
    assert "Traceback" not in error


def test_a_database_that_cannot_be_opened_is_refused_with_exit_code_4(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "e.db").write_text("this is no database, it is a text that is long enough")
    assert main(["--database", str(tmp_path / "e.db"), "--home", str(tmp_path), "--port", "0", "--json"]) == 4
    (error,) = json.loads(capsys.readouterr().out)["errors"]
    assert error["code"] == "database"


def test_another_address_without_a_key_is_refused_with_exit_code_5(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--database", str(tmp_path / "e.db"), "--home", str(tmp_path), "--host", "0.0.0.0", "--port", "0"]
    assert main(arguments) == 5
    assert "--create-key" in capsys.readouterr().err


def test_a_key_can_be_made_without_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "e.db")
    assert main(["--database", path, "--home", str(tmp_path), "--port", "0", "--create-key", "infer,feedback"]) == 0
    key = capsys.readouterr().out.strip()
    with open_database(path).reading() as session:
        (known,) = known_keys(session, [str(key_id_of(key))]).values()
    assert known.opened_by(key)
    assert known.roles == {"infer", "feedback"}


def test_help_imports_no_ray() -> None:
    code = (
        "import sys\nfrom espalier_serving.app import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60, capture_output=True).returncode == 0


def test_a_second_program_on_one_sqlite_database_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = open_database(str(tmp_path / "e.db"))
    with only_server_of(database):
        assert main(["--database", str(tmp_path / "e.db"), "--home", str(tmp_path), "--port", "0"]) == 5
    assert "another program serves this database" in capsys.readouterr().err
    with only_server_of(database):
        pass  # free again
    database.close()


def test_keys_of_runs_that_were_killed_are_revoked_and_others_stay(tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "e.db"))
    with database.writing() as session:
        old = create_key(session, roles=["admin"], actor="serve")
        other = create_key(session, roles=["infer"], actor="create-key")
        revoke_keys_of(session, "serve")
    with database.reading() as session:
        known = known_keys(session, [old["id"], other["id"]])
    assert (known[old["id"]].revoked, known[other["id"]].revoked) == (True, False)
    database.close()
