"""The store: artifacts on a folder or an object store, attempts, pointers from requests, verification.

    attempts/<uuid>/files/...       what a writer makes; `beside/` holds what has times in it; `heartbeat` its life
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
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from espalier_sdk.artifacts import KINDS, ArtifactRef, FileEntry, Manifest
from espalier_sdk.errors import DataError, EspalierError
from pydantic import ValidationError

from espalier_runtime.disk import HASH_PROBLEM, difference, file_entries, size_problem, store_errors
from espalier_runtime.disk import disk_error as disk_error  # part of what the store offers

HEARTBEAT_SECONDS = 20.0
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
            folder = Path(uri).expanduser().resolve()
            with store_errors(str(folder)):
                folder.mkdir(parents=True, exist_ok=True)
            return cls(pafs.LocalFileSystem(), str(folder), uri=str(folder))
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
        return bool(self._info(_manifest_path(ref)).is_file)

    def manifest(self, ref: ArtifactRef) -> Manifest:
        """Reads a manifest; DataError where it is absent or its content is not what the reference names."""
        path = _manifest_path(ref)
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

    def resolve(self, text: str) -> ArtifactRef:
        """Returns the artifact that `kind/name@<8 or more hex>` names; DataError where none or several do."""
        head, _, digest = text.partition("@")
        kind, _, name = head.partition("/")
        if kind not in KINDS or not name or len(digest) < 8 or not set(digest) <= set("0123456789abcdef"):
            raise DataError(
                f"{text!r} is no reference", given=text, accepted="kind/name@<8 or more hexadecimal digits>", code="ref"
            )
        found = [ref for ref in self.refs(kind) if ref.name == name and ref.digest.startswith(digest)]
        if len(found) == 1:
            return found[0]
        near = [ref.short() for ref in self.refs(kind)][:8]
        raise DataError(
            f"{text} names {len(found) or 'no'} artifact{'s' if len(found) > 1 else ''} of this store",
            code="absent" if not found else "ambiguous",
            given=text,
            file=self.uri,
            accepted=", ".join(near) or "nothing is in it yet",
            remedy="give more digits" if found else "`espalier runs` lists what was made",
        )

    # Reading

    def open_artifact(self, ref: ArtifactRef) -> OpenArtifact:
        """Checks sizes and hashes and returns a local folder; DataError names the file that differs."""
        manifest = self.manifest(ref)
        folder = self._local_copy(ref, manifest)
        for entry in manifest.files:
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
        for entry in manifest.files:
            problem = self._remote_difference(f"attempts/{_attempt_of(manifest)}/files/{entry.path}", entry)
            if problem:
                return f"{entry.path} {problem}"
        return None

    # Writing

    def begin(self, request: str) -> Attempt:
        """Opens an attempt at a request: a fresh folder to write in, and a heartbeat."""
        return Attempt(self, request)

    def remove(self, ref: ArtifactRef) -> None:
        """Removes an artifact, its manifest first, so that no reader finds half of it."""
        text = self._read_or_none(_manifest_path(ref))
        with store_errors(self.uri):
            self._fs.delete_file(self._path(_manifest_path(ref)))
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
            beat = self._info(f"attempts/{attempt}/heartbeat")
            last = beat.mtime.timestamp() if beat.is_file and beat.mtime else 0.0
            if now - last > older_than_seconds:
                yield attempt

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
        return _attempt_in(self._read_or_none(_manifest_path(ref)))

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
        if not self._info(relative).is_file:
            return None
        with store_errors(self.uri), self._fs.open_input_stream(self._path(relative)) as stream:
            return bytes(stream.read()).decode("utf-8", errors="replace")

    def _write(self, relative: str, text: str) -> None:
        """Writes a small file so that a reader sees all of it or nothing."""
        path = self._path(relative)
        with store_errors(self.uri):
            if not self.local:
                with self._fs.open_output_stream(path) as stream:
                    stream.write(text.encode())
                return
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
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
        with store_errors(self.uri), self._fs.open_input_stream(self._path(relative)) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        return None if digest.hexdigest() == entry.sha256 else HASH_PROBLEM

    def _delete(self, relative: str) -> None:
        with store_errors(self.uri):
            if self._info(relative).type == pafs.FileType.Directory:
                self._fs.delete_dir(self._path(relative))

    def _local_copy(self, ref: ArtifactRef, manifest: Manifest) -> Path:
        source = f"attempts/{_attempt_of(manifest)}/files"
        if self.local:
            return Path(self._root) / source
        folder = _cache_folder() / ref.kind / ref.name / ref.digest
        with store_errors(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
        for entry in manifest.files:
            target = folder / entry.path
            if difference(target, entry) is None:
                continue
            with store_errors(self.uri):
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
                there = self._path(f"{source}/{entry.path}")
                with self._fs.open_input_stream(there) as stream, part.open("wb") as file:
                    shutil.copyfileobj(stream, file, _CHUNK)
                part.replace(target)
        return folder


class Attempt:
    """One try at making an artifact. What lies in `folder` when `publish` is called is the artifact."""

    def __init__(self, store: Store, request: str) -> None:
        self.store, self.request, self.id = store, request, uuid.uuid4().hex
        self._stop = threading.Event()
        if store.local:
            home = Path(store._path(f"attempts/{self.id}"))
        else:
            home = Path(tempfile.mkdtemp(prefix="espalier-attempt-"))
        self.folder, self.beside = home / "files", home / "beside"
        with store_errors(store.uri):
            self.folder.mkdir(parents=True)
            self.beside.mkdir()
        self._beat()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)
        self._thread.start()

    def publish(self, **fields: Any) -> Manifest:
        """Hashes the files, uploads them where the store is remote, and writes the manifest and the pointer.

        `fields` are those of `Manifest` but `files`; `provenance` gets the attempt's name.
        """
        with store_errors(self.store.uri):
            files = tuple(file_entries(self.folder))
            if not self.store.local:
                self._upload()
        fields["provenance"] = {**fields.get("provenance", {}), "attempt": self.id}
        manifest = Manifest(files=files, **fields)
        ref = manifest.ref()
        # Equal content: the first writer's manifest stands, unless what it names is damaged by now.
        if not self.store.has(ref) or self.store.verify(ref):
            self.store._write(_manifest_path(ref), manifest.model_dump_json(indent=1))
        self.store._write(f"requests/{self.request}.json", json.dumps({"ref": str(ref)}))
        self.close()
        return self.store.manifest(ref)

    def fail(self, record: str) -> None:
        """Leaves `failure.json` in the attempt; a broken store, which may be the failure itself, is passed over."""
        with contextlib.suppress(EspalierError):
            self.store._write(f"attempts/{self.id}/failure.json", record)

    def close(self) -> None:
        """Ends the heartbeat; what was not published is left for `store gc`."""
        self._stop.set()
        if not self.store.local:
            shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _upload(self) -> None:
        for name, folder in (("files", self.folder), ("beside", self.beside)):
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    relative = path.relative_to(folder).as_posix()
                    target = self.store._path(f"attempts/{self.id}/{name}/{relative}")
                    with path.open("rb") as file, self.store._fs.open_output_stream(target) as stream:
                        shutil.copyfileobj(file, stream, _CHUNK)

    def _beat(self) -> None:
        text = json.dumps({"request": self.request, "pid": os.getpid(), "at": time.time()})
        self.store._write(f"attempts/{self.id}/heartbeat", text)

    def _keep_alive(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(EspalierError):  # the next beat may pass; a lasting error the writer itself meets
                self._beat()


def _attempt_in(manifest: str | None) -> str | None:
    try:
        return str(json.loads(manifest or "{}")["provenance"]["attempt"])
    except (ValueError, KeyError, TypeError):
        return None


def _manifest_path(ref: ArtifactRef) -> str:
    return f"artifacts/{ref.kind}/{ref.name}/{ref.digest}.json"


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
