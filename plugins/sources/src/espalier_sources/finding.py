"""Which files a list of paths means: globs and folders resolved, formats known, names without a machine's folders.

Knows nothing about what is in a file, except that it is not empty.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from espalier_sdk.errors import DataError, Problem
from espalier_sdk.groups import did_you_mean

from espalier_sources.config import Format

FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "txt",
    ".text": "txt",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to read: where it is, the name that rows carry, its format and compression."""

    path: str
    name: str
    format: Format
    compression: str | None

    def to_json(self) -> dict[str, str | None]:
        """Returns the part that crosses to a worker."""
        return {"path": self.path, "name": self.name, "format": self.format, "compression": self.compression}


def find_files(paths: tuple[str, ...], *, format: Format | None) -> list[FoundFile]:
    """Returns the files in the order of `paths`, those of a folder or glob sorted; each file once.

    Raises DataError for all that is missing, empty, unreadable, or of an unknown ending, with its place in `paths`.
    """
    found: dict[str, int] = {}
    files: list[FoundFile] = []
    problems: list[Problem] = []
    for place, text in enumerate(paths):
        try:
            for path in _expand(text, any_ending=format is not None):
                found.setdefault(os.path.realpath(path), place)
        except DataError as error:
            problems += [replace(problem, field=f"paths.{place}") for problem in error.problems]
    for (path, place), name in zip(found.items(), _names(list(found)), strict=True):
        try:
            files.append(_checked(path, name, format))
        except DataError as error:
            problems += [replace(problem, field=f"paths.{place}") for problem in error.problems]
    if problems:
        raise DataError(problems=tuple(problems))
    return files


def split_endings(name: str) -> tuple[str, str | None]:
    """Returns the ending that tells the format, and the compression: `a.csv.gz` is `.csv` and `gzip`."""
    path = PurePath(name)
    compression = COMPRESSIONS.get(path.suffix.lower())
    if compression is not None:
        path = path.with_suffix("")
    return path.suffix.lower(), compression


def _expand(text: str, *, any_ending: bool) -> Iterator[str]:
    path = Path(text)
    if path.is_dir():
        inside = sorted(_walk(path, any_ending=any_ending), key=lambda path: path.parts)
        if not inside:
            raise DataError(
                "no file with a known ending in this folder",
                file=text,
                accepted=", ".join((*FORMATS, *COMPRESSIONS)),
                remedy="name the files, or set `format`",
            )
        yield from map(str, inside)
    elif os.path.lexists(text):
        yield text
    elif glob.has_magic(text):
        found = glob.glob(text, recursive=True)  # noqa: PTH207
        matches = sorted(match for match in found if Path(match).is_file())
        if not matches:
            raise DataError("no file matches this pattern", file=text, remedy=_what_is_there(text))
        yield from matches
    else:
        raise DataError("there is no such file", code="missing_file", file=text, remedy=_what_is_there(text))


def _walk(folder: Path, *, any_ending: bool) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file() and (any_ending or split_endings(path.name)[0] in FORMATS):
            yield path


def _what_is_there(text: str) -> str:
    """Returns the nearest name to what was asked for, or what stands in the nearest folder that is there."""
    path = Path(text)
    while not path.parent.is_dir():
        path = path.parent
    names = sorted(one.name for one in path.parent.iterdir()) if os.access(path.parent, os.R_OK) else []
    near = did_you_mean(path.name, names)
    return near or f"its folder holds: {', '.join(names[:8]) or 'nothing'}{', ...' if len(names) > 8 else ''}"


def _names(paths: list[str]) -> list[str]:
    """Returns as many trailing parts of each path as make all names differ: no folder of a machine gets in."""
    parts = [Path(path).parts for path in paths]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return paths


def _checked(path: str, name: str, format: Format | None) -> FoundFile:
    ending, compression = split_endings(name)
    known = format or FORMATS.get(ending)
    if known is None:
        raise DataError(
            f"unknown ending {ending!r}" if ending else "the name has no ending that tells the format",
            code="unknown_format",
            file=path,
            accepted=", ".join((*FORMATS, *COMPRESSIONS)),
            remedy=did_you_mean(ending, list(FORMATS)) or "set `format`",
        )
    try:
        with open(path, "rb") as file:
            first = file.read(1)
    except OSError as error:
        raise unreadable(path, error) from error
    if not first:
        raise DataError("the file is empty", code="empty_file", file=path, remedy="fill it, or take it out of `paths`")
    return FoundFile(path, name, known, compression)


def unreadable(path: str, error: OSError) -> DataError:
    """Returns the error for a file that the system does not let us read."""
    if isinstance(error, FileNotFoundError):
        return DataError("there is no such file", code="missing_file", file=path, remedy=_what_is_there(path))
    return DataError(
        f"cannot be read: {error.strerror or error}",
        code="unreadable_file",
        file=path,
        remedy="give this user the right to read it" if isinstance(error, PermissionError) else "check the disk",
    )
