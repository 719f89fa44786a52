"""`python -m espalier_serving.prepare`: what a fresh installation needs before it serves. Without Ray; again is safe.

Makes the schema, keeps the administrator's key of ESPALIER_ADMIN_KEY, and, with `--demo`, proposes the demo's model.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from espalier_runtime.copying import copy_artifact
from espalier_runtime.main import print_errors
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef
from espalier_sdk.errors import DataError, EspalierError

from espalier_serving.database import DATABASE_VARIABLE, open_database
from espalier_serving.keys import ROLES, keep_key
from espalier_serving.proposing import propose

ACTOR = "installation"
KEY_VARIABLE = "ESPALIER_ADMIN_KEY"
PROPOSAL = "proposal.json"  # beside the demo's store: what `espalier_serving.propose` takes
_STEP_SECONDS = 2.0


def main() -> int:
    """Prepares the database and the store that the environment or the options name; returns the exit code."""
    arguments = _parser().parse_args()
    try:
        wait_for_database(arguments.database, seconds=arguments.wait_seconds)
        key = os.environ.get(KEY_VARIABLE)
        if key and keep(arguments.database, key):
            print("kept the administrator's key", file=sys.stderr)
        if arguments.demo:
            told = propose_demo(arguments.demo, database=arguments.database, store=arguments.store)
            print(f"endpoint {told['endpoint']}, champion {told['champion']}", file=sys.stderr)
    except EspalierError as error:
        print_errors(error, as_json=False)
        return error.exit_code
    return 0


def wait_for_database(url: str, *, seconds: float) -> None:
    """Returns when the database opens, its schema made; raises the DataError of the last try after some seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            open_database(url).close()
            return
        except DataError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_STEP_SECONDS)


def keep(url: str, key: str) -> bool:
    """Makes a key valid for all roles; returns False where it is known."""
    database = open_database(url)
    try:
        with database.writing() as session:
            return keep_key(session, key, roles=ROLES, actor=ACTOR)
    finally:
        database.close()


def propose_demo(folder: Path, *, database: str, store: str) -> dict[str, Any]:
    """Copies a demo's models into the store and proposes them; returns what was recorded.

    The folder has a store, `store`, and `proposal.json`: endpoint, task, variants and the name of the bootstrap.
    """
    try:
        proposal = json.loads((folder / PROPOSAL).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"there is no demo in this folder: {error}", file=str(folder), remedy="take an image that has one"
        ) from error
    source, target = Store.look(str(folder / "store")), Store.open(store)
    for _, ref, *_ in proposal["variants"]:
        copy_artifact(ArtifactRef.parse(ref), source=source, target=target)
    return propose(database, **proposal, actor=ACTOR)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m espalier_serving.prepare", description=__doc__)
    database, store = os.environ.get(DATABASE_VARIABLE), os.environ.get("ESPALIER_STORE")
    parser.add_argument(
        "--database", default=database, required=not database, help=f"a path or URL; default: {DATABASE_VARIABLE}"
    )
    parser.add_argument("--store", default=store, required=not store, help="folder or URI; default: ESPALIER_STORE")
    parser.add_argument("--demo", type=Path, metavar="FOLDER", help="propose the demo that lies there")
    parser.add_argument("--wait-seconds", type=float, default=300.0, help="longest wait for the database")
    return parser


if __name__ == "__main__":
    sys.exit(main())
