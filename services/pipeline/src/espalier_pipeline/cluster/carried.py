"""What a driver's log carries beside words, for whoever follows it: the result as JSON, and the report.

The log is what is left when pods are gone, and to read it is the one right that is needed.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_RESULT, _REPORT = "espalier-result ", "espalier-report "  # how those lines begin


def packed(report: Path) -> str:
    """Returns a report as one word: some tens of kilobytes."""
    return b64encode(gzip.compress(report.read_bytes(), mtime=0)).decode()


def print_carried(result: Mapping[str, Any], report: str | None) -> None:
    """Prints the lines of a driver that has ended."""
    if report:
        print(_REPORT + report, flush=True)
    print(_RESULT + json.dumps(result, default=str), flush=True)


class Carried:
    """Takes what a log carries out of its lines."""

    def __init__(self) -> None:
        self.result: dict[str, Any] | None = None
        self._report: str | None = None

    def takes(self, line: str) -> bool:
        """Tells whether a line is no word; what it carries is kept."""
        if line.startswith(_RESULT):
            self.result = json.loads(line.removeprefix(_RESULT))
        elif line.startswith(_REPORT):
            self._report = line.removeprefix(_REPORT)
        else:
            return False
        return True

    def write_report(self, folder: Path) -> Path | None:
        """Writes the report into a folder, names it in the result, and returns its path; None where there is none."""
        if self._report is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "report.html"
        path.write_bytes(gzip.decompress(b64decode(self._report)))
        if self.result is not None:
            self.result["report"] = str(path)
        return path
