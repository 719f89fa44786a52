"""Stages as child processes: started as commands, watched, and ended with the driver.

Each child holds the read end of a pipe as its standard input; when the driver dies, even by `kill -9`, the kernel
closes it and the child ends. Events come back through a second pipe.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from espalier_runtime.parent import PARENT_VARIABLE
from espalier_runtime.progress import EVENTS_VARIABLE
from espalier_runtime.store import disk_error
from espalier_sdk import errors

_BY_EXIT_CODE = {
    cls.exit_code: cls
    for cls in (
        errors.SpecError,
        errors.PluginError,
        errors.DataError,
        errors.ClusterError,
        errors.ThresholdMissed,
        errors.Refused,
        errors.TrainingFailed,
    )
}


def run_child(
    module: str,
    arguments: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    on_event: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Runs `python -m module` and returns the JSON document that it prints.

    Raises the error that the child reported, with its exit code, ClusterError where it died without a word, or
    DataError where the disk does not take its log.
    """
    log_file = _open_log(log)
    read_end, write_end = os.pipe()
    with log_file:
        child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            env={**os.environ, **environment, PARENT_VARIABLE: "1", EVENTS_VARIABLE: str(write_end)},
            pass_fds=(write_end,),
            start_new_session=True,  # Ctrl-C reaches the driver, which ends its children in order
        )
    os.close(write_end)
    listener = threading.Thread(target=_listen, args=(read_end, on_event), daemon=True)
    listener.start()
    try:
        output = child.stdout.read() if child.stdout else b""
        code = child.wait()
    except BaseException:
        end(child)
        raise
    listener.join(timeout=5)
    return _document(output, code, module, log)


def error_of(exit_code: int, problems: tuple[errors.Problem, ...], *, retryable: bool = False) -> errors.EspalierError:
    """Returns the error that another process ended with."""
    return _BY_EXIT_CODE.get(exit_code, errors.EspalierError)(problems=problems, retryable=retryable)


def end(child: subprocess.Popen[bytes]) -> None:
    """Ends a child: its input is closed, then it is asked, then it is killed."""
    if child.stdin:
        child.stdin.close()
    try:
        child.wait(timeout=3)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _open_log(log: Path) -> BinaryIO:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError as error:
        raise disk_error(error, str(log)) from error


def _listen(descriptor: int, on_event: Callable[[dict[str, Any]], None]) -> None:
    with os.fdopen(descriptor, "r", encoding="utf-8") as events:
        for line in events:
            try:
                on_event(json.loads(line))
            except json.JSONDecodeError:
                continue


def _document(output: bytes, code: int, module: str, log: Path) -> dict[str, Any]:
    lines = output.decode("utf-8", errors="replace").strip().splitlines()
    try:
        document: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    except json.JSONDecodeError:
        document = {}
    if code == 0 and document:
        return document
    if "errors" in document:
        raise error_of(code, tuple(errors.Problem(**problem) for problem in document["errors"]))
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    raise errors.ClusterError(
        f"{module} ended with {how} and said no reason",
        code="stage_died",
        file=str(log),
        remedy="run again: what was complete is not repeated; the log has its last words",
        retryable=True,
    )


class RayHead:
    """The one local Ray of a pipeline, held by a process that ends with the driver; started at first need."""

    def __init__(self, *, cpus: int | None, memory_gib: float | None, log: Path) -> None:
        self._cpus, self._memory, self._log = cpus, memory_gib, log
        self._child: subprocess.Popen[bytes] | None = None
        self._environment: dict[str, str] = {}

    def begin(self) -> None:
        """Starts Ray without waiting for it."""
        if self._child is not None or os.environ.get("RAY_ADDRESS"):
            return
        arguments = ["--cpus", str(self._cpus or os.cpu_count() or 1)]
        if self._memory:
            arguments += ["--memory-gib", str(self._memory)]
        with _open_log(self._log) as log_file:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "espalier_pipeline.ray_head", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                start_new_session=True,
            )

    def environment(self) -> dict[str, str]:
        """Returns what a child needs to join; waits until Ray is up. ClusterError where it does not come up."""
        if os.environ.get("RAY_ADDRESS"):
            return {}
        self.begin()
        if not self._environment:
            assert self._child is not None and self._child.stdout is not None
            line = self._child.stdout.readline()
            try:
                self._environment = dict(json.loads(line))
            except json.JSONDecodeError:
                raise errors.ClusterError(
                    "the local Ray did not start",
                    code="ray",
                    file=str(self._log),
                    remedy="the log says why; `espalier doctor` looks at this machine",
                ) from None
        return self._environment

    @property
    def started(self) -> bool:
        """Tells whether a local Ray was needed."""
        return self._child is not None

    def stop(self) -> None:
        """Ends the local Ray, if there is one."""
        if self._child is not None:
            end(self._child)
            self._child, self._environment = None, {}
