"""The ledger of a study: what became of each trial, one line per event, so that a killed study loses none.

Beside an object store the home may end with its pod, so a copy of the ledger lies in the store, and counts. Knows
nothing about how values are found or models are trained.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from espalier_runtime import shelf
from espalier_runtime.disk import store_errors
from espalier_runtime.store import Store

State = Literal["running", "complete", "stopped", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Record:
    """One trial: its place in the sampler's space, and what came of it.

    `complete` has a score and a model per seed; `stopped` was ended by the scheduler; `refused` has values that the
    candidate or a plugin does not take; `failed` came to no model, by a loss that was no number for example.
    """

    number: int
    point: dict[str, Any]
    state: State = "running"
    score: float | None = None
    scores: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()  # on validation, as training went on
    models: tuple[str, ...] = ()
    message: str = ""


@dataclass
class Ledger:
    """The records of one study, in a file that only grows; the last line of a trial counts."""

    path: Path
    store: Store
    records: dict[int, Record] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, store: Store) -> Ledger:
        """Reads what is there; a last line that a killed process left half written is passed over."""
        ledger = cls(path, store)
        with store_errors(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not store.local and (there := shelf.get(store, ledger._there)) is not None:
                path.write_bytes(there)
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            if text and not text.endswith("\n"):  # else the next line would be part of the half one
                with path.open("a", encoding="utf-8") as file:
                    file.write("\n")
        for line in text.splitlines():
            try:
                told = json.loads(line)
            except json.JSONDecodeError:
                continue
            lists = {name: tuple(told[name]) for name in ("scores", "losses", "models")}
            ledger.records[told["number"]] = Record(**{**told, **lists})
        return ledger

    def write(self, record: Record) -> None:
        """Adds a line, on disk and in an object store before this returns; DataError where one does not take it."""
        self.records[record.number] = record
        with store_errors(str(self.path)), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if not self.store.local:
            shelf.put(self.store, self._there, [self.path.read_bytes()])

    def update(self, number: int, **fields: Any) -> None:
        """Writes a trial's record again, with other fields."""
        self.write(replace(self.records[number], **fields))

    @property
    def _there(self) -> str:
        return f"{shelf.STUDIES}/{self.path.stem}/{self.path.name}"
