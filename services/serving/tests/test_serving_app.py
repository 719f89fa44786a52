"""The program: what it refuses before anything is started, and the key it makes without a server."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from espalier_serving import app
from espalier_serving.app import main
from espalier_serving.database import open_database
from espalier_serving.keys import create_key, key_id_of, known_keys, revoke_keys_of
from espalier_serving.starting import only_server_of
from espalier_serving.testing.program import free_port


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
    assert (
        main(["--database", str(tmp_path / "e.db"), "--home", str(tmp_path), "--port", str(free_port()), "--json"]) == 4
    )
    (error,) = json.loads(capsys.readouterr().out)["errors"]
    assert error["code"] == "database"


def test_another_address_without_a_key_is_refused_with_exit_code_5(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--database",
        str(tmp_path / "e.db"),
        "--home",
        str(tmp_path),
        "--host",
        "0.0.0.0",
        "--port",
        str(free_port()),
    ]
    assert main(arguments) == 5
    assert "--create-key" in capsys.readouterr().err


def test_the_key_of_a_run_that_was_killed_is_none_for_another_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_database(str(tmp_path / "e.db")).writing() as session:
        left = create_key(session, roles=["admin"], actor="serve")
    arguments = ["--database", str(tmp_path / "e.db"), "--home", str(tmp_path), "--port", str(free_port())]
    assert main([*arguments, "--host", "0.0.0.0"]) == 5
    assert "no key" in capsys.readouterr().err
    with open_database(str(tmp_path / "e.db")).reading() as session:
        assert known_keys(session, [left["id"]])[left["id"]].revoked


def test_a_key_can_be_made_without_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "e.db")
    assert (
        main(
            ["--database", path, "--home", str(tmp_path), "--port", str(free_port()), "--create-key", "infer,feedback"]
        )
        == 0
    )
    key = capsys.readouterr().out.strip()
    with open_database(path).reading() as session:
        (known,) = known_keys(session, [str(key_id_of(key))]).values()
    assert known.opened_by(key)
    assert known.roles == {"infer", "feedback"}


def test_a_key_can_be_made_while_a_server_holds_the_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = ["--database", str(tmp_path / "e.db"), "--home", str(tmp_path), "--port", port]
        assert main([*arguments, "--create-key"]) == 0
    assert capsys.readouterr().out.startswith("esk_")


@pytest.mark.parametrize("port", ["0", "-1", "99999"])
def test_a_port_that_there_is_not_is_refused_with_exit_code_2(
    tmp_path: Path, port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--database", str(tmp_path / "e.db"), "--home", str(tmp_path), "--port", port]) == 2
    error = capsys.readouterr().err
    assert "1 to 65535" in error and "Traceback" not in error


def test_the_database_is_the_one_of_the_environment_where_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ESPALIER_DATABASE_URL", f"sqlite:///{tmp_path / 'of the environment.db'}")
    assert main(["--home", str(tmp_path), "--create-key"]) == 0
    assert (tmp_path / "of the environment.db").exists()


@pytest.mark.parametrize("module", ["propose", "named"])
def test_commands_without_a_server_read_the_environment_too(tmp_path: Path, module: str) -> None:
    proposal = {
        "endpoint": "support",
        "task": "classification",
        "bootstrap": "a",
        "variants": [["a", f"model/a@{'a' * 64}", "echo", {}]],
    }
    more = ["--proposal", json.dumps(proposal)] if module == "propose" else []
    done = subprocess.run(
        [sys.executable, "-m", f"espalier_serving.{module}", *more],
        env={**os.environ, "ESPALIER_DATABASE_URL": str(tmp_path / "e.db")},
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "e.db").exists()


def test_a_home_that_is_made_is_its_owners_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "new" / "home"
    assert main(["--home", str(home), "--create-key"]) == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


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
        assert main(["--database", str(tmp_path / "e.db"), "--home", str(tmp_path), "--port", str(free_port())]) == 5
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


def test_a_start_without_any_model_says_so_and_how_one_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("start_ray", "start_applications", "stop"):
        monkeypatch.setattr(app, name, lambda *_, **__: None)
    monkeypatch.setattr(app, "wait_until_ready", lambda *_, **__: True)
    monkeypatch.setattr(app.Program, "_serve", lambda *_: None)
    monkeypatch.setattr(app.Program, "_listen_for_signals", lambda *_: None)
    assert main(["--database", str(tmp_path / "e.db"), "--home", str(tmp_path), "--port", str(free_port())]) == 0
    told = capsys.readouterr().out
    assert "nothing is served yet: `espalier run`" in told
    assert "curl" not in told
