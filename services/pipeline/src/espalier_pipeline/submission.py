"""`submit --address`: the same driver as a job of a Ray cluster that is already running, through its Jobs API.

Knows nothing about Kubernetes. The job lives and dies with the cluster; Ctrl-C here leaves it running.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from espalier_sdk.errors import EXIT_INTERRUPTED, ClusterError, SpecError, TrainingFailed

from espalier_pipeline.commands.printing import command_line, print_next
from espalier_pipeline.packing import pack
from espalier_pipeline.reading import load_checked

PLUGINS = "plugins"
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_AGENT_SECONDS = 60.0
_AWAY_SECONDS = 60.0
_PASSED_ON = ("ESPALIER_DATABASE_URL", "MLFLOW_TRACKING_URI", "ESPALIER_PLUGINS_ALLOW")


def submit(
    path: Path,
    *,
    address: str,
    detach: bool,
    plugins: Sequence[Path],
    overrides: Sequence[str],
    store: str | None,
    as_json: bool,
) -> int:
    """Submits a pipeline, follows its log, and returns the exit code of what it came to.

    The job's id derives from spec, overrides and plugins: submitting the same again adopts the job that is there.
    """
    store = store or os.environ.get("ESPALIER_STORE")
    spec, document = load_checked(path, overrides=overrides)
    if not store:
        print(
            "note: without --store the job's models are kept on the node that runs it, and end with it", file=sys.stderr
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for plugin in plugins:
            _ship(plugin, folder / PLUGINS)
        pack(document, folder)
        entry = ["python", "-m", "espalier_pipeline.command", "run", document.path.name, "--home", _home(store)]
        entry += ["--store", store] if store else []
        for override in overrides:
            entry += ["--set", override]
        identity = f"espalier-{spec.name}-{_digest(folder, entry)[:12]}"
        with _asking(address):
            client = _client(address)
            _adopt_or_submit(client, identity, entry, folder)
    if as_json and detach:
        print(json.dumps({"job": identity, "address": address}))
    print(f"job              {identity} at {address}", file=sys.stderr)
    if detach:
        again = [word for plugin in plugins for word in ("--plugin", plugin)]
        print_next(command_line("submit", path, "--address", address, *again, store=store, overrides=overrides))
        return 0
    try:
        with _asking(address):
            for text in _follow(client, identity):
                print(text, end="", file=sys.stderr if as_json else sys.stdout, flush=True)
    except KeyboardInterrupt:
        print(f"\nleft running; follow it again with the same command. Job {identity}", file=sys.stderr)
        return EXIT_INTERRUPTED
    with _asking(address):
        return _outcome(client, identity, as_json=as_json)


def _home(store: str | None) -> str:
    """Returns where the job keeps runs and databases: beside a store that is a folder, else in the job's folder."""
    if store and "://" not in store:
        return str(Path(store).resolve().parent)
    return ".espalier"


def _ship(plugin: Path, out: Path) -> None:
    """Builds a plugin's wheel and unpacks it into the job's folder, where its entry points are found."""
    with tempfile.TemporaryDirectory() as built:
        build = [sys.executable, "-m", "build", "--wheel", "--outdir", built, str(plugin)]
        done = subprocess.run(build, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason given"]
            raise SpecError(f"--plugin {plugin} does not build: {last[0]}", field="--plugin", file=str(plugin))
        for wheel in Path(built).glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(out)


def _digest(folder: Path, entry: Sequence[str]) -> str:
    digest = hashlib.sha256(json.dumps(list(entry)).encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _asking(address: str) -> Iterator[None]:
    """Turns what Ray's client answers for a cluster that is away, or another, into one ClusterError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:  # requests' errors are OSErrors
        raise ClusterError(
            f"Ray's Jobs API at {address} cannot be used: {' '.join(str(error).split())[:300]}",
            code="ray",
            given=address,
            retryable=isinstance(error, OSError),
            remedy="give the dashboard's address, such as http://host:8265, of a Ray of this version; "
            "a job that was taken goes on, and the same command follows it again",
        ) from error


def _client(address: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(address)


def _adopt_or_submit(client: Any, identity: str, entry: Sequence[str], folder: Path) -> None:
    known = {job.submission_id: str(job.status) for job in client.list_jobs()}
    if known.get(identity) in ("PENDING", "RUNNING"):
        print("adopted: the same pipeline is running there already", file=sys.stderr)
        return
    if identity in known:
        client.delete_job(identity)  # ended: the store tells the new driver what is done
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    if (folder / PLUGINS).is_dir():
        environment["PYTHONPATH"] = PLUGINS
    job = {
        "entrypoint": shlex.join(entry),
        "submission_id": identity,
        "runtime_env": {"working_dir": str(folder), "env_vars": {"PYTHONUNBUFFERED": "1", **environment}},
        "metadata": {"espalier": identity},
    }
    deadline = time.monotonic() + _AGENT_SECONDS
    while True:
        try:
            client.submit_job(**job)
            return
        except RuntimeError as error:
            text = " ".join(str(error).split())
            if "No available agent" not in text or time.monotonic() > deadline:  # a young cluster has none yet
                raise ClusterError(f"the job was not taken: {text[:300]}", code="ray", retryable=True) from error
            time.sleep(1.0)


def _follow(client: Any, identity: str) -> Iterator[str]:
    """Yields the job's log as it grows, until the job ends; a dashboard that is away for a while is asked again."""
    seen, answered = 0, time.monotonic()
    while True:
        try:
            ended = str(client.get_job_status(identity)) in _ENDED
            text = client.get_job_logs(identity)
        except OSError:
            if time.monotonic() - answered > _AWAY_SECONDS:
                raise
            time.sleep(1.0)
            continue
        answered = time.monotonic()
        if len(text) > seen:
            yield text[seen:]
            seen = len(text)
        if ended:
            return
        time.sleep(1.0)


def _outcome(client: Any, identity: str, *, as_json: bool) -> int:
    info = client.get_job_info(identity)
    status = str(info.status)
    if as_json:
        print(json.dumps({"job": identity, "status": status, "exit_code": info.driver_exit_code}))
    if status == "SUCCEEDED":
        return 0
    if info.driver_exit_code is not None and 0 < info.driver_exit_code < 128:
        return int(info.driver_exit_code)  # the driver's own exit codes pass through
    raise TrainingFailed(
        f"job {identity} ended as {status}: {info.message or 'no reason given'}", remedy="its log stands above"
    )
