"""How often a test split was opened: one line per opening, below the home."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from espalier_runtime.store import disk_error

_FILE = "test-openings.jsonl"


def count_opening(home: Path, *, dataset: str, models: Sequence[str], run: str) -> int:
    """Counts how often the test split of a dataset was opened: once per set of models that was shown it.

    Raises DataError where the disk does not take the line.
    """
    path = home / _FILE
    opening = {"dataset": dataset, "models": sorted(models)}
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        same = [one for one in _openings(text) if one["dataset"] == dataset]
        if any(one["models"] == opening["models"] for one in same):
            return len(same)
        with path.open("a", encoding="utf-8") as file:
            start = "" if not text or text.endswith("\n") else "\n"  # a line that a full disk has cut stays alone
            file.write(start + json.dumps({**opening, "run": run, "at": time.time()}) + "\n")
    except OSError as error:
        raise disk_error(error, str(path)) from error
    return len(same) + 1


def _openings(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            one = json.loads(line)
        except json.JSONDecodeError:  # cut by a full disk or a killed driver: the run was told so then
            continue
        if isinstance(one, dict) and {"dataset", "models"} <= set(one):
            yield one
