"""A base model in a folder of this machine, or of a volume that all nodes see: never pickle, never code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from espalier_sdk import DataError, PluginConfig
from pydantic import Field

from espalier_hub.native import copy_native, require_native

# Weights, configuration and tokenizer; anything else may be pickle or code, or changes with where it was made.
KEPT = (".safetensors", ".json", ".txt", ".model", ".jinja", ".tiktoken")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack")


class FolderConfig(PluginConfig):
    """Which folder."""

    path: str = Field(description="A Hugging Face folder: config.json, tokenizer.json, *.safetensors.")


class Folder:
    """Reads a Hugging Face folder; its revision is the hash of its content."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[FolderConfig]] = FolderConfig

    def __init__(self, config: FolderConfig) -> None:
        self._folder = Path(config.path)

    def revision(self) -> str:
        """Returns the SHA-256 over names and contents; DataError where the folder is no model."""
        digest = hashlib.sha256()
        for path in self._files():
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def fetch(self, revision: str, folder: Path) -> None:
        """Copies the model; DataError where `revision` names another, or transformers has not its architecture."""
        if self.revision() != revision:
            raise DataError("changed since the request was made", file=str(self._folder), remedy="run again")
        require_native(self._folder / "config.json", name=str(self._folder), field="base.config.path")
        copy_native(self._files(), folder)

    def _files(self) -> Iterator[Path]:
        if not (self._folder / "config.json").is_file() or not list(self._folder.glob("*.safetensors")):
            raise DataError(
                "is no Hugging Face model folder with config.json and *.safetensors",
                file=str(self._folder),
                field="base.config.path",
                remedy=self._remedy(),
            )
        for path in sorted(self._folder.iterdir()):
            if path.is_file() and path.suffix in KEPT and not path.name.startswith("."):
                yield path

    def _remedy(self) -> str:
        if self._folder.is_dir() and any(path.suffix in PICKLES for path in self._folder.iterdir()):
            return "convert the weights to safetensors; pickle is not opened"
        return "give the folder that `save_pretrained` wrote"
