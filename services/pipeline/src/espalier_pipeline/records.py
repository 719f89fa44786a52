"""Run records: one folder per run below the home, with `run.json`, logs and the report."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from espalier_runtime.store import disk_error
from espalier_sdk.errors import DataError, SpecError


class RunRecord:
    """What one run did so far, kept on disk after each step so that others can look on."""

    def __init__(self, folder: Path, data: dict[str, Any]) -> None:
        self.folder, self.data = folder, data

    @classmethod
    def begin(cls, runs: Path, *, name: str, spec: Path) -> RunRecord:
        """Opens a new record; DataError where the home cannot be written."""
        identity = secrets.token_hex(4)
        folder = runs / identity
        try:
            (folder / "logs").mkdir(parents=True)
        except OSError as error:
            raise disk_error(error, str(folder)) from error
        record = cls(
            folder,
            {
                "id": identity,
                "name": name,
                "spec": str(spec),
                "state": "running",
                "pid": os.getpid(),
                "created_at": _created_at(os.getpid()),
                "started_at": time.time(),
                "stages": [],
            },
        )
        record.save()
        return record

    @classmethod
    def load(cls, runs: Path, identity: str) -> RunRecord:
        """Reads the record whose id begins so; SpecError where none or several do."""
        found = [folder for folder in _folders(runs) if folder.name.startswith(identity)]
        if len(found) != 1:
            raise SpecError(
                f"{identity!r} names {len(found) or 'no'} run{'s' if len(found) > 1 else ''}",
                code="unknown_run",
                given=identity,
                file=str(runs),
                remedy="`espalier runs` lists them",
            )
        try:
            return cls(found[0], json.loads((found[0] / "run.json").read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise DataError(
                "the record of this run is damaged", file=str(found[0]), remedy="remove its folder, and run again"
            ) from error

    @classmethod
    def all(cls, runs: Path) -> Iterator[RunRecord]:
        """Yields every record that can be read, the newest first."""
        records = []
        for folder in _folders(runs):
            with contextlib.suppress(OSError, ValueError):
                records.append(cls(folder, json.loads((folder / "run.json").read_text(encoding="utf-8"))))
        yield from sorted(records, key=lambda record: -float(record.data["started_at"]))

    @property
    def id(self) -> str:
        """Returns the run's id."""
        return str(self.data["id"])

    @property
    def logs(self) -> Path:
        """Returns the folder of the stages' logs."""
        return self.folder / "logs"

    def state(self) -> str:
        """Returns running, done, failed or interrupted; a run whose process is gone is `interrupted`."""
        state = str(self.data["state"])
        return "interrupted" if state == "running" and self.process() is None else state

    def process(self) -> int | None:
        """Returns the id of the process that works on this run, or None where it is gone."""
        pid, created = int(self.data["pid"]), _created_at(int(self.data["pid"]))
        return pid if created is not None and abs(created - float(self.data.get("created_at") or 0)) < 1 else None

    def update(self, **fields: Any) -> None:
        """Sets fields and saves."""
        self.data.update(fields)
        self.save()

    def save(self) -> None:
        """Writes the record so that a reader sees all of it or the one before."""
        try:
            temporary = self.folder / "run.json.part"
            temporary.write_text(json.dumps(self.data, indent=1, default=str), encoding="utf-8")
            temporary.replace(self.folder / "run.json")
        except OSError as error:
            raise disk_error(error, str(self.folder)) from error


def _folders(runs: Path) -> list[Path]:
    """Returns the folders that hold a record; an id is compared with their names, and never read as a pattern."""
    return [one for one in runs.iterdir() if (one / "run.json").is_file()] if runs.is_dir() else []


def _created_at(pid: int) -> float | None:
    """Returns when a process was started, which tells it from a later one with its number; None where there is none."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None
