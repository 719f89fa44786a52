"""A finished artifact brought from one store to another, with all that its digest covers."""

from __future__ import annotations

import contextlib
import shutil

from espalier_sdk.artifacts import ArtifactRef, Manifest

from espalier_runtime.store import Store

_OF_THE_ATTEMPT = ("files", "file_list")  # written anew, from the files themselves


def copy_artifact(ref: ArtifactRef, *, source: Store, target: Store) -> bool:
    """Copies an artifact and the pointer of the request that it answers; returns False where it is there already.

    Raises DataError where the source's files are damaged, or the target cannot be written.
    """
    if target.has(ref):
        return False
    opened = source.open_artifact(ref)
    attempt = target.begin(str(opened.manifest.provenance.get("request", ref.digest)))
    with contextlib.closing(attempt):
        shutil.copytree(opened.folder, attempt.folder, dirs_exist_ok=True)
        fields = {name: getattr(opened.manifest, name) for name in Manifest.model_fields if name not in _OF_THE_ATTEMPT}
        attempt.publish(**fields)
    return True
