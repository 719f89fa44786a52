"""What a submitted pipeline takes along: its spec, the files that it names by relative path, and how it was asked."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from espalier_runtime.specs import SpecDocument
from espalier_sdk.errors import DataError, SpecError

SUBMISSIONS = "submissions"  # the folder of a store in which a cluster keeps what was sent
REQUEST = "submission.json"  # beside the spec: its name, overrides, and the plugins that it was checked with


def pack(document: SpecDocument, folder: Path) -> None:
    """Copies the spec and the files that it names by relative path, which is what a job's folder can hold."""
    root = document.path.parent
    shutil.copyfile(document.path, folder / document.path.name)
    for relative in sorted(set(_paths(document.plain()))):
        if "://" in relative or Path(relative).is_absolute():
            continue
        if ".." in Path(relative).parts:
            raise SpecError(
                f"path {relative!r} leaves the spec's folder: a job cannot take it along",
                given=relative,
                remedy="put the file below the spec, or name it by an address that the cluster reads",
            )
        found = sorted(root.glob(relative))
        if not found:
            raise DataError(
                "there is no such file to take along",
                code="missing_file",
                file=str(root / relative),
                given=relative,
                remedy="correct the path in the spec, or name it by an address that the cluster reads",
            )
        for source in found:
            target = folder / source.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            elif source.is_file():
                shutil.copyfile(source, target)


def write_request(folder: Path, request: Mapping[str, Any]) -> None:
    """Writes how the pipeline was asked for."""
    (folder / REQUEST).write_text(json.dumps(request, sort_keys=True), encoding="utf-8")


def bundle(folder: Path, out: Path) -> str:
    """Writes a folder as one compressed file and returns its SHA-256; equal folders give equal bytes."""
    with out.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as file:
        _write_tar(folder, file)
    digest = hashlib.sha256()
    with out.open("rb") as written:
        while chunk := written.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def unbundle(file: Path, folder: Path) -> dict[str, Any]:
    """Writes what a bundle holds into a folder and returns how the pipeline was asked for.

    Raises DataError for an entry that is no file below the folder; `bundle` writes none.
    """
    with tarfile.open(file) as tar:
        for entry in tar:
            target, content = (folder / entry.name).resolve(), tar.extractfile(entry)
            if content is None or not target.is_relative_to(folder.resolve()):
                raise DataError("the bundle holds what is no file of a spec's folder", file=str(file), given=entry.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                shutil.copyfileobj(content, out)
    request: dict[str, Any] = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    return request


def _write_tar(folder: Path, file: IO[bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            if not path.is_file():
                continue
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size, entry.mode = path.stat().st_size, 0o644  # no times and no owners: equal files, equal bytes
            with path.open("rb") as content:
                tar.addfile(entry, content)


def _paths(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("path", "paths"):
                yield from value if isinstance(value, list) else [str(value)]
            else:
                yield from _paths(value)
    elif isinstance(node, list):
        for value in node:
            yield from _paths(value)
