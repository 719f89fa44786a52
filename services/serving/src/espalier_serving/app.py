"""The endpoint as a program: `python -m espalier_serving`, in the foreground until it is stopped."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from espalier_sdk.errors import EXIT_INTERRUPTED, ClusterError, EspalierError
from sqlalchemy.exc import SQLAlchemyError

from espalier_serving.announcing import described, sentence
from espalier_serving.database import DATABASE_VARIABLE, Database, absolute_url, open_database
from espalier_serving.drafts import start_drafts
from espalier_serving.keys import ROLES, create_key, has_valid_key, key_id_of, revoke_key, revoke_keys_of
from espalier_serving.starting import (
    ACTOR,
    LOOPBACK,
    Place,
    check_free,
    check_port,
    only_server_of,
    start_applications,
    start_ray,
    stop,
    wait_until_ready,
)

ENDPOINT_FILE = "endpoint.json"
_NOTHING_SERVED = (
    "nothing is served yet: `espalier run` of a spec that has `serve` proposes models, also while this runs"
)
_TICK_SECONDS = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until a signal comes; returns the exit code: 0 after SIGTERM, 130 after Ctrl-C."""
    from espalier_runtime.main import print_errors, watch_parent

    arguments = _parser().parse_args(argv)
    watch_parent()
    try:
        return Program(arguments).run()
    except EspalierError as error:
        print_errors(error, as_json=arguments.json)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


class Program:
    """One run of the endpoint."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._home = Path(arguments.home).absolute()
        given = arguments.database or os.environ.get(DATABASE_VARIABLE) or str(self._home / "espalier.db")
        self._url = absolute_url(given)
        self._store = arguments.store if "://" in arguments.store else str(Path(arguments.store).absolute())
        self._place = Place(arguments.host, arguments.port)
        self._signal = threading.Event()
        self._exit_code = 0
        self._key_id: str | None = None
        self._out: TextIO = sys.stdout

    def run(self) -> int:
        """Starts, tells where it is, waits for a signal, and stops."""
        # Ray prints what it has to say about workers to standard output, which is ours alone.
        with contextlib.redirect_stdout(sys.stderr):
            return self._run()

    def _run(self) -> int:
        begun = time.perf_counter()
        check_port(self._place.port)
        if not self._arguments.create_key and not os.environ.get("RAY_ADDRESS"):
            check_free(self._place.host, self._place.port)  # early: opening a Ray takes seconds
        database = open_database(self._url)
        try:
            if self._arguments.create_key:
                return self._print_key(database)
            with only_server_of(database):
                _revoke_left_keys(database)
                self._check_host(database)
                return self._run_on(database, begun)
        finally:
            database.close()

    def _run_on(self, database: Database, begun: float) -> int:
        self._listen_for_signals()
        try:
            self._start(database)
            if self._ready(database):
                self._announce(database, time.perf_counter() - begun)
                self._serve(database)
            return self._exit_code
        finally:
            self._end(database)

    def _check_host(self, database: Database) -> None:
        with database.reading() as session:
            if self._place.host in LOOPBACK or has_valid_key(session):
                return
        raise ClusterError(
            f"{self._place.host} can be reached from other machines, and the database has no key",
            code="no_key",
            field="--host",
            given=self._place.host,
            remedy="make a key first: python -m espalier_serving --create-key, or serve on 127.0.0.1",
        )

    def _start(self, database: Database) -> None:
        with self._place.timed("ray"):
            start_ray(self._place)
        self._listen_for_signals()  # once more: Ray installs a handler of its own
        start_applications(self._place, database, url=self._url, store=self._store, gateways=self._arguments.gateways)

    def _ready(self, database: Database) -> bool:
        with self._place.timed("ready"):
            return wait_until_ready(
                self._place, database, seconds=self._arguments.start_seconds, stopping=self._signal.is_set
            )

    def _announce(self, database: Database, seconds: float) -> None:
        key = self._make_key(database) if self._place.host in LOOPBACK else None
        endpoints = described(database)
        if self._arguments.json:
            event = {
                "event": "ready",
                "url": self._place.url,
                "key": key,
                "endpoints": endpoints,
                "seconds": seconds,
                "steps": self._place.seconds,
            }
            print(json.dumps(event), flush=True, file=self._out)
            return
        for one in endpoints:
            print(sentence(one), file=self._out)
            if one["error"] is not None:
                print(f"  {one['champion']} does not answer: {one['error']}", file=self._out)
        print(f"ready in {seconds:.1f} s on {self._place.url}", flush=True, file=self._out)
        if key is not None:
            print(f"key  {key}  (shown once; {self._home / ENDPOINT_FILE} has it while this runs)", file=self._out)
        if not endpoints:
            print(_NOTHING_SERVED, flush=True, file=self._out)
        elif key is not None:
            print(_curl(self._place.url, key, endpoints[0]["name"]), flush=True, file=self._out)

    def _make_key(self, database: Database) -> str:
        path = self._home / ENDPOINT_FILE
        with database.writing() as session:
            made = create_key(session, roles=ROLES, actor=ACTOR)
        self._key_id = made["id"]
        _write_private(path, {"url": self._place.url, "key": made["key"]})
        return str(made["key"])

    def _serve(self, database: Database) -> None:
        while not self._signal.wait(_TICK_SECONDS):
            if self._arguments.start_experiment:
                # A database that is away for a moment ends nothing: the gateway goes on answering.
                with contextlib.suppress(SQLAlchemyError):
                    self._start_drafts(database, self._arguments.start_experiment)

    def _start_drafts(self, database: Database, endpoint: str) -> None:
        for one in start_drafts(database, endpoint, actor=ACTOR):
            self._tell(
                {"event": "experiment", "id": one.id, "endpoint": one.endpoint, "state": "running"},
                f"experiment {one.id} of {one.endpoint} started: {one.control} against {one.treatment}",
            )

    def _end(self, database: Database) -> None:
        if self._key_id is not None:
            with contextlib.suppress(SQLAlchemyError), database.writing() as session:
                revoke_key(session, self._key_id, actor=ACTOR)
            path = self._home / ENDPOINT_FILE
            if _key_id_in(path) == self._key_id:
                path.unlink(missing_ok=True)
        stop(self._place)

    def _print_key(self, database: Database) -> int:
        with database.writing() as session:
            made = create_key(session, roles=self._arguments.create_key.split(","), actor="create-key")
        print(json.dumps(made) if self._arguments.json else made["key"], file=self._out)
        return 0

    def _tell(self, event: dict[str, Any], sentence: str) -> None:
        print(json.dumps(event) if self._arguments.json else sentence, flush=True, file=self._out)

    def _listen_for_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._on_signal)
            signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._signal.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: do not wait for an orderly end
        self._exit_code = EXIT_INTERRUPTED if number == signal.SIGINT else 0
        self._signal.set()


def _revoke_left_keys(database: Database) -> None:
    """Revokes the keys of runs that were killed, whatever address this one serves on."""
    if not database.single_writer:
        return  # another program may serve the same database, with a key of its own
    with database.writing() as session:
        revoke_keys_of(session, ACTOR)


def _curl(url: str, key: str, endpoint: str) -> str:
    body = json.dumps({"model": endpoint, "input": "How do I reset my password?", "user": "u1"})
    return f"curl {url}/v1/classify -H 'authorization: Bearer {key}' -H 'content-type: application/json' -d '{body}'"


def _key_id_in(path: Path) -> str | None:
    try:
        return key_id_of(str(json.loads(path.read_text(encoding="utf-8"))["key"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_private(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # so that the mode is that of a new file
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(value, file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m espalier_serving", description="Serves the endpoints of a database until it is stopped."
    )
    parser.add_argument("--database", help=f"a path or URL; default: {DATABASE_VARIABLE}, else espalier.db in the home")
    parser.add_argument("--store", default=".espalier/store", help="folder or URI of the store with the models")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on")
    parser.add_argument("--home", default=".espalier", help="folder for endpoint.json")
    parser.add_argument("--gateways", type=int, default=1, help="gateway replicas; more than one needs Postgres")
    parser.add_argument("--start-seconds", type=float, default=600.0, help="longest time until champions answer")
    parser.add_argument(
        "--start-experiment",
        metavar="ENDPOINT",
        help="start the experiment that a pipeline drafted for this endpoint, as soon as its variants are ready",
    )
    parser.add_argument(
        "--create-key", nargs="?", const=",".join(ROLES), metavar="ROLES", help="make a key, print it, and end"
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    return parser
