"""`espalier serve`: the serving service in the foreground, with what pipelines proposed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from espalier_runtime.main import PARENT_VARIABLE

from espalier_pipeline.places import DATABASE_VARIABLE, Places
from espalier_pipeline.reading import check


def serve(
    spec: Path | None,
    *,
    host: str,
    port: int,
    home: Path | None = None,
    store: str | None = None,
    as_json: bool = False,
) -> int:
    """Serves until it is interrupted; with a spec that names a challenger, the experiment of its endpoint is started.

    Returns the service's exit code.
    """
    places = Places.of(spec, home=home, store=store)
    read = check(spec) if spec else None
    arguments = ["--store", places.store, "--host", host, "--port", str(port)]
    arguments += ["--home", str(places.home)] + (["--json"] if as_json else [])
    if read and read.serve and read.serve.challenger:
        arguments += ["--start-experiment", read.serve.endpoint]
    child = subprocess.Popen(
        [sys.executable, "-m", "espalier_serving", *arguments],
        stdin=subprocess.PIPE,
        # Not on the command line, which every user of this machine may read: the address may hold a password.
        env={**os.environ, PARENT_VARIABLE: "1", DATABASE_VARIABLE: places.database},
        start_new_session=True,
    )
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda number, _: child.send_signal(number))
    return child.wait()
