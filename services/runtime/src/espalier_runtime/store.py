"""The store: artifacts on a folder or an object store, attempts, pointers from requests, verification.

    attempts/<uuid>/files/...       what a writer makes; `beside/` holds what has times in it; `heartbeat` its life
    attempts/<uuid>/files.parquet   the list of those files where a manifest would be long; the manifest has its hash
    artifacts/<kind>/<name>/<digest>.json    the manifest, written last; its provenance names the attempt
    requests/<digest>.json          which artifact answers a request; the last complete writer wins

Knows nothing about specs, stages or plugins.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
from espalier_sdk.artifacts import KINDS, ArtifactRef, FileEntry, Manifest
from espalier_sdk.errors import DataError
from pydantic import ValidationError

from espalier_runtime.attempt import FILE_LIST, manifest_path
from espalier_runtime.attempt import Attempt as Attempt  # what `begin` returns
from espalier_runtime.disk import HASH_PROBLEM, difference, size_problem, store_errors
from espalier_runtime.disk import disk_error as disk_error  # part of what the store offers
from espalier_runtime.filelist import from_parquet

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class OpenArtifact:
    """A finished artifact whose files have been checked and lie in a local folder."""

    ref: ArtifactRef
    manifest: Manifest
    folder: Path


class Store:
    """One store, named by a folder or by a URI that `pyarrow.fs` understands (`s3://`, `gs://`)."""

    def __init__(self, filesystem: pafs.FileSystem, root: str, *, uri: str) -> None:
        self._fs, self._root, self.uri = filesystem, root.rstrip("/"), uri
        self.local = isinstance(filesystem, pafs.LocalFileSystem)

    @classmethod
    def open(cls, uri: str) -> Store:
        """Opens a store, making its folder where there is none; DataError where it cannot be used.

        For S3, credentials and `AWS_ENDPOINT_URL` come from the environment, as for every AWS client.
        """
        if "://" not in uri:
            with store_errors(uri):
                Path(uri).expanduser().resolve().mkdir(parents=True, exist_ok=True)
        return cls.look(uri)

    @classmethod
    def look(cls, uri: str) -> Store:
        """Opens a store to read from it alone: a folder that is not there is an empty store, and is not made."""
        if "://" not in uri:
            folder = str(Path(uri).expanduser().resolve())
            return cls(pafs.LocalFileSystem(), folder, uri=folder)
        try:
            filesystem, root = _object_store(uri)
            bucket = root.partition("/")[0]
            if bucket and filesystem.get_file_info(bucket).type == pafs.FileType.NotFound:
                raise ValueError(f"there is no bucket {bucket}")
        except (OSError, pa.ArrowInvalid, ValueError) as error:
            raise DataError(
                f"store cannot be opened: {error}", file=uri, remedy="check the address, the bucket and the credentials"
            ) from error
        return cls(filesystem, root, uri=uri)

    # Finding

    def find_request(self, digest: str) -> ArtifactRef | None:
        """Returns the artifact that answers a request, or None."""
        text = self._read_or_none(f"requests/{digest}.json")
        if text is None:
            return None
        try:
            ref = ArtifactRef.parse(json.loads(text)["ref"])
        except (ValueError, KeyError, TypeError):
            return None
        return ref if self.has(ref) else None

    def has(self, ref: ArtifactRef) -> bool:
        """Tells whether the manifest of an artifact is there."""
        return bool(self._info(manifest_path(ref)).is_file)

    def manifest(self, ref: ArtifactRef) -> Manifest:
        """Reads a manifest; DataError where it is absent or its content is not what the reference names."""
        path = manifest_path(ref)
        text = self._read_or_none(path)
        if text is None:
            raise DataError(
                f"{ref} is not in the store", code="absent", file=self.uri, given=str(ref), remedy="run its stage again"
            )
        try:
            manifest = Manifest.model_validate_json(text)
        except ValidationError:
            manifest = None
        if manifest is None or manifest.digest() != ref.digest:
            raise DataError(
                f"the manifest of {ref.short()} is damaged",
                code="damaged",
                file=f"{self.uri}/{path}",
                remedy="`espalier store verify --remove-damaged`, then run again",
            )
        return manifest

    def refs(self, kind: str | None = None) -> Iterator[ArtifactRef]:
        """Yields every artifact, by kind and name."""
        for one in [kind] if kind else KINDS:
            for info in self._list(f"artifacts/{one}", recursive=True):
                if info.is_file and info.path.endswith(".json"):
                    name, digest = info.path.removesuffix(".json").split("/")[-2:]
                    with contextlib.suppress(ValueError):  # a stranger's file: no manifest of ours is named so
                        yield ArtifactRef.parse(f"{one}/{name}@{digest}")

    def files(self, manifest: Manifest) -> tuple[FileEntry, ...]:
        """Returns every file of an artifact; DataError where the list of a long one is absent or damaged."""
        if manifest.file_list is None:
            return manifest.files
        path = f"attempts/{_attempt_of(manifest)}/{FILE_LIST}"
        content = self._bytes_or_none(path)
        entries = from_parquet(content, manifest.file_list) if content is not None else None
        if entries is None:
            raise DataError(
                f"the list of files of {manifest.ref().short()} is absent or damaged",
                code="damaged",
                file=f"{self.uri}/{path}",
                remedy="`espalier store verify --remove-damaged`, then run again",
            )
        return entries

    def resolve(self, text: str) -> ArtifactRef:
        """Returns the artifact that `kind/name@<8 or more hex>` names; DataError where none or several do."""
        head, _, digest = text.partition("@")
        kind, _, name = head.partition("/")
        if kind not in KINDS or not name or len(digest) < 8 or not set(digest) <= set("0123456789abcdef"):
            raise DataError(
                f"{text!r} is no reference",
                given=text,
                accepted="kind/name@<8 or more hexadecimal digits>",
                code="ref",
                remedy="`espalier runs ID` lists what a run made",
            )
        found = [ref for ref in self.refs(kind) if ref.name == name and ref.digest.startswith(digest)]
        if len(found) == 1:
            return found[0]
        near = [ref.short() for ref in self.refs(kind)][:8]
        none = "" if near else f"there is no {kind} yet; "
        raise DataError(
            f"{text} names {len(found) or 'no'} artifact{'s' if len(found) > 1 else ''} of this store",
            code="absent" if not found else "ambiguous",
            given=text,
            file=self.uri,
            accepted=", ".join(near) or None,
            remedy="give more digits" if found else f"{none}`espalier runs ID` lists what a run made",
        )

    # Reading

    def open_artifact(self, ref: ArtifactRef, *, only: str | None = None) -> OpenArtifact:
        """Checks sizes and hashes and returns a local folder; DataError names the file that differs.

        With `only` the path of one file: no other is fetched or checked.
        """
        manifest = self.manifest(ref)
        entries = [entry for entry in self.files(manifest) if only in (None, entry.path)]
        folder = self._local_copy(ref, manifest, entries)
        for entry in entries:
            with store_errors(str(folder)):
                problem = difference(folder / entry.path, entry)
            if problem:
                raise DataError(
                    f"{ref.short()}: {entry.path} {problem}",
                    code="damaged",
                    file=str(folder / entry.path),
                    remedy="`espalier store verify --remove-damaged`, then run again",
                )
        return OpenArtifact(ref, manifest, folder)

    def beside(self, ref: ArtifactRef) -> Path | None:
        """Returns the folder of what lies beside an artifact (logs, reports); None where the store is remote."""
        folder = Path(self._root) / "attempts" / _attempt_of(self.manifest(ref)) / "beside"
        return folder if self.local and folder.is_dir() else None

    def verify(self, ref: ArtifactRef) -> str | None:
        """Re-hashes an artifact where it lies; returns what is wrong with it, or None.

        Raises DataError where the store itself cannot be read.
        """
        if not self.verify_manifest(ref):
            return "the manifest is absent or damaged"
        manifest = self.manifest(ref)
        try:
            entries = self.files(manifest)
        except DataError as error:
            if error.problems[0].code != "damaged":
                raise
            return "the list of its files is absent or damaged"
        for entry in entries:
            problem = self._remote_difference(f"attempts/{_attempt_of(manifest)}/files/{entry.path}", entry)
            if problem:
                return f"{entry.path} {problem}"
        return None

    # Writing

    def begin(self, request: str, *, reads: Iterable[ArtifactRef] = ()) -> Attempt:
        """Opens an attempt at a request: a fresh folder to write in, and a heartbeat that names what it reads."""
        return Attempt(self, request, reads=reads)

    def remove(self, ref: ArtifactRef) -> None:
        """Removes an artifact, its manifest first, so that no reader finds half of it."""
        text = self._read_or_none(manifest_path(ref))
        with store_errors(self.uri):
            self._fs.delete_file(self._path(manifest_path(ref)))
        if attempt := _attempt_in(text):
            self._delete(f"attempts/{attempt}")

    def abandoned(self, *, older_than_seconds: float) -> Iterator[str]:
        """Yields attempts that no manifest names and whose heartbeat is older than that."""
        named = {self._named_attempt(ref) for ref in self.refs()}
        now = time.time()
        for info in self._list("attempts"):
            attempt = info.path.rsplit("/", 1)[-1]
            if attempt in named:
                continue
            if now - self._last_beat(attempt) > older_than_seconds:
                yield attempt

    def leased(self, *, within_seconds: float) -> set[ArtifactRef]:
        """Returns what attempts at work read: those whose heartbeat is younger than that."""
        found: set[ArtifactRef] = set()
        for info in self._list("attempts"):
            attempt = info.path.rsplit("/", 1)[-1]
            if time.time() - self._last_beat(attempt) > within_seconds:
                continue
            with contextlib.suppress(ValueError, TypeError):  # a beat that is cut or a stranger's leases nothing
                told = json.loads(self._read_or_none(f"attempts/{attempt}/heartbeat") or "{}")
                found |= {ArtifactRef.parse(text) for text in told.get("reads", ())}
        return found

    def made_at(self, ref: ArtifactRef) -> float:
        """Returns when an artifact was published, in seconds since 1970; now where nobody can tell."""
        info = self._info(manifest_path(ref))
        return info.mtime.timestamp() if info.is_file and info.mtime else time.time()

    def verify_manifest(self, ref: ArtifactRef) -> bool:
        """Tells whether a manifest is there and is the one its name says; DataError where the store cannot be read."""
        try:
            self.manifest(ref)
        except DataError as error:
            if error.problems[0].code in ("absent", "damaged"):
                return False
            raise
        return True

    def attempt_size(self, attempt: str) -> int:
        """Returns the bytes of an attempt."""
        return sum(info.size or 0 for info in self._list(f"attempts/{attempt}", recursive=True) if info.is_file)

    def discard(self, attempt: str) -> int:
        """Removes an attempt and returns its bytes."""
        size = self.attempt_size(attempt)
        self._delete(f"attempts/{attempt}")
        return size

    def _named_attempt(self, ref: ArtifactRef) -> str | None:
        """Returns the attempt that a manifest names, even where the manifest is damaged: gc must not make it worse."""
        return _attempt_in(self._read_or_none(manifest_path(ref)))

    def _last_beat(self, attempt: str) -> float:
        beat = self._info(f"attempts/{attempt}/heartbeat")
        return beat.mtime.timestamp() if beat.is_file and beat.mtime else 0.0

    # Files of the store

    def _path(self, relative: str) -> str:
        return f"{self._root}/{relative}"

    def _info(self, relative: str) -> pafs.FileInfo:
        with store_errors(self.uri):
            return self._fs.get_file_info(self._path(relative))

    def _list(self, relative: str, *, recursive: bool = False) -> list[pafs.FileInfo]:
        selector = pafs.FileSelector(self._path(relative), allow_not_found=True, recursive=recursive)
        with store_errors(self.uri):
            return sorted(self._fs.get_file_info(selector), key=lambda info: info.path)

    def _read_or_none(self, relative: str) -> str | None:
        content = self._bytes_or_none(relative)
        return None if content is None else content.decode("utf-8", errors="replace")

    def _bytes_or_none(self, relative: str) -> bytes | None:
        if not self._info(relative).is_file:
            return None
        with store_errors(self.uri), self._fs.open_input_stream(self._path(relative), compression=None) as stream:
            return bytes(stream.read())

    def _write(self, relative: str, text: str) -> None:
        self._write_bytes(relative, text.encode())

    def _write_bytes(self, relative: str, content: bytes) -> None:
        """Writes a small file so that a reader sees all of it or nothing."""
        path = self._path(relative)
        with store_errors(self.uri):
            if not self.local:
                with self._fs.open_output_stream(path, compression=None) as stream:
                    stream.write(content)
                return
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)

    def _remote_difference(self, relative: str, entry: FileEntry) -> str | None:
        info = self._info(relative)
        if not info.is_file:
            return "is missing"
        if info.size != entry.size_bytes:
            return size_problem(info.size, entry)
        digest = hashlib.sha256()
        with store_errors(self.uri), self._fs.open_input_stream(self._path(relative), compression=None) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        return None if digest.hexdigest() == entry.sha256 else HASH_PROBLEM

    def _delete(self, relative: str) -> None:
        with store_errors(self.uri):
            if self._info(relative).type == pafs.FileType.Directory:
                self._fs.delete_dir(self._path(relative))

    def _local_copy(self, ref: ArtifactRef, manifest: Manifest, entries: Iterable[FileEntry]) -> Path:
        source = f"attempts/{_attempt_of(manifest)}/files"
        if self.local:
            return Path(self._root) / source
        folder = _cache_folder() / ref.kind / ref.name / ref.digest
        with store_errors(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
        for entry in entries:
            target = folder / entry.path
            if difference(target, entry) is None:
                continue
            with store_errors(self.uri):
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
                there = self._path(f"{source}/{entry.path}")
                with self._fs.open_input_stream(there, compression=None) as stream, part.open("wb") as file:
                    shutil.copyfileobj(stream, file, _CHUNK)
                part.replace(target)
        return folder


def _attempt_in(manifest: str | None) -> str | None:
    try:
        return str(json.loads(manifest or "{}")["provenance"]["attempt"])
    except (ValueError, KeyError, TypeError):
        return None


def _attempt_of(manifest: Manifest) -> str:
    return str(manifest.provenance["attempt"])


def _object_store(uri: str) -> tuple[pafs.FileSystem, str]:
    if not uri.partition("://")[2]:
        raise ValueError("the address names no bucket")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if uri.startswith("s3://") and endpoint:
        scheme, _, host = endpoint.rpartition("://")
        filesystem = pafs.S3FileSystem(
            endpoint_override=host,
            scheme=scheme or "https",
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        )
        return filesystem, uri.removeprefix("s3://")
    filesystem, root = pafs.FileSystem.from_uri(uri)
    return filesystem, root


def _cache_folder() -> Path:
    base = os.environ.get("ESPALIER_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "espalier" / "artifacts"
