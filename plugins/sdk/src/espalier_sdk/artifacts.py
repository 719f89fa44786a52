"""What stages share: references to artifacts, and the manifest that makes an artifact count.

Knows nothing about where artifacts are kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

ArtifactKind = Literal["corpus", "dataset", "prepared", "model", "study", "evaluation"]
KINDS: tuple[ArtifactKind, ...] = get_args(ArtifactKind)
SCHEMA_VERSION = 1

_NAME = r"[a-z0-9][a-z0-9._-]{0,62}"
_REF = re.compile(rf"^(?P<kind>{'|'.join(KINDS)})/(?P<name>{_NAME})@(?P<digest>[0-9a-f]{{64}})$")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


def canonical_json(value: Any) -> bytes:
    """Returns the one spelling of a JSON value that digests are taken from (sorted keys, no spaces, UTF-8)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: Any) -> str:
    """Returns the SHA-256 of a JSON value, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


class ArtifactRef(_Frozen):
    """Names one finished artifact: `kind/name@<64 hex>`."""

    kind: ArtifactKind
    name: str = Field(pattern=f"^{_NAME}$")
    digest: str = Field(pattern="^[0-9a-f]{64}$")

    @classmethod
    def parse(cls, text: str) -> ArtifactRef:
        """Reads a full reference; raises ValueError where the text is none."""
        match = _REF.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a reference: kind/name@<64 hex> with kind one of {', '.join(KINDS)}")
        return cls.model_validate(match.groupdict())

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}@{self.digest}"

    def short(self) -> str:
        """Returns the reference with the first 12 digits, which every command accepts."""
        return f"{self.kind}/{self.name}@{self.digest[:12]}"


class FileEntry(_Frozen):
    """One file of an artifact."""

    path: str
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class FileList(_Frozen):
    """The files of an artifact that has many, named by one hash; the list itself lies in the store."""

    count: int = Field(ge=0)
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class PluginUse(_Frozen):
    """A plugin that had a part in making an artifact, down to the hash of its code."""

    group: str
    name: str
    distribution: str
    version: str
    sha256: str


class PluginNeed(_Frozen):
    """A plugin without which an artifact cannot be opened again."""

    group: str
    name: str


class Manifest(_Frozen):
    """The record that makes an artifact count: written last, so its presence is the only sign of completion.

    The digest covers all but `metrics` and `provenance`, which hold times and measurements.
    """

    schema_version: int = SCHEMA_VERSION
    kind: ArtifactKind
    name: str = Field(pattern=f"^{_NAME}$")
    files: tuple[FileEntry, ...]
    inputs: tuple[ArtifactRef, ...] = ()
    what: dict[str, Any] = Field(default_factory=dict, description="The part of the spec that would change the answer.")
    plugins: tuple[PluginUse, ...] = ()
    requires: tuple[PluginNeed, ...] = ()
    metrics: dict[str, Any] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)
    file_list: FileList | None = Field(default=None, description="Stands for `files` where there are many.")

    @property
    def size_bytes(self) -> int:
        """Returns the bytes of all files."""
        return self.file_list.size_bytes if self.file_list else sum(entry.size_bytes for entry in self.files)

    def digest(self) -> str:
        """Returns the artifact's digest."""
        left_out = {"metrics", "provenance"} | (set() if self.file_list else {"file_list"})
        return digest_of(self.model_dump(mode="json", exclude=left_out))

    def ref(self) -> ArtifactRef:
        """Returns the reference that names this artifact."""
        return ArtifactRef(kind=self.kind, name=self.name, digest=self.digest())
