"""One try at making an artifact: a folder to write in, a heartbeat, and the publishing at its end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_sdk.artifacts import ArtifactRef, FileEntry, Manifest
from espalier_sdk.errors import EspalierError

from espalier_runtime.disk import file_entries, store_errors
from espalier_runtime.filelist import MANY_FILES, list_of, to_parquet

if TYPE_CHECKING:
    from espalier_runtime.store import Store

HEARTBEAT_SECONDS = 20.0
FILE_LIST = "files.parquet"
_CHUNK = 1 << 20


class Attempt:
    """What lies in `folder` when `publish` is called is the artifact; what lies in `beside` stays out of its digest.

    The heartbeat also names what the attempt reads, so that nobody sweeps it away meanwhile.
    """

    def __init__(self, store: Store, request: str, *, reads: Iterable[ArtifactRef] = ()) -> None:
        self.store, self.request, self.id = store, request, uuid.uuid4().hex
        self._reads = {str(ref) for ref in reads}
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

    @property
    def beside_uri(self) -> str:
        """Returns where others find `beside` after the attempt's end, also where the store is remote."""
        return str(self.beside) if self.store.local else f"{self.store.uri}/attempts/{self.id}/beside"

    def read(self, ref: ArtifactRef) -> None:
        """Adds an artifact to what the heartbeat names."""
        self._reads.add(str(ref))
        self._beat()

    def publish(self, **fields: Any) -> Manifest:
        """Hashes the files, uploads them where the store is remote, and writes the manifest and the pointer.

        `fields` are those of `Manifest` but `files`; `provenance` gets the attempt's name.
        """
        with store_errors(self.store.uri):
            files = tuple(file_entries(self.folder))
            if not self.store.local:
                self._upload("files", "beside")
        fields["provenance"] = {**fields.get("provenance", {}), "attempt": self.id}
        manifest = Manifest(**self._listed(files), **fields)
        ref = manifest.ref()
        # Equal content: the first writer's manifest stands, unless what it names is damaged by now.
        if not self.store.has(ref) or self.store.verify(ref):
            self.store._write(manifest_path(ref), manifest.model_dump_json(indent=1))
        self.store._write(f"requests/{self.request}.json", json.dumps({"ref": str(ref)}))
        self.close()
        return self.store.manifest(ref)

    def fail(self, record: str) -> None:
        """Leaves `failure.json` and what lies beside; a broken store, maybe the failure itself, is passed over."""
        with contextlib.suppress(EspalierError):
            self.store._write(f"attempts/{self.id}/failure.json", record)
            if not self.store.local:  # it explains the failure: quarantined rows, logs
                with store_errors(self.store.uri):
                    self._upload("beside")

    def close(self) -> None:
        """Ends the heartbeat; what was not published is left for `store gc`."""
        self._stop.set()
        if not self.store.local:
            shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _listed(self, files: tuple[FileEntry, ...]) -> dict[str, Any]:
        """Returns the manifest's own list, or where it would be long, the name of one in the store."""
        if len(files) <= MANY_FILES:
            return {"files": files}
        self.store._write_bytes(f"attempts/{self.id}/{FILE_LIST}", to_parquet(files))
        return {"files": (), "file_list": list_of(files)}

    def _upload(self, *names: str) -> None:
        for name in names:
            folder = self.folder.parent / name
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    relative = path.relative_to(folder).as_posix()
                    target = self.store._path(f"attempts/{self.id}/{name}/{relative}")
                    with path.open("rb") as file, self.store._fs.open_output_stream(target, compression=None) as stream:
                        shutil.copyfileobj(file, stream, _CHUNK)

    def _beat(self) -> None:
        told = {"request": self.request, "pid": os.getpid(), "at": time.time(), "reads": sorted(self._reads)}
        self.store._write(f"attempts/{self.id}/heartbeat", json.dumps(told))

    def _keep_alive(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(EspalierError):  # the next beat may pass; a lasting error the writer itself meets
                self._beat()


def manifest_path(ref: ArtifactRef) -> str:
    """Returns where in a store an artifact's manifest lies."""
    return f"artifacts/{ref.kind}/{ref.name}/{ref.digest}.json"
