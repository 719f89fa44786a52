"""A base model of the Hugging Face Hub at one commit: safetensors only, never pickle, never code.

Knows nothing about files of this machine but the hub's own cache, from which it also answers without a network.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import ClassVar

from espalier_sdk import DataError, PluginConfig
from pydantic import Field, SecretStr, field_validator

from espalier_hub.folder import KEPT, PICKLES
from espalier_hub.native import copy_native, require_native

_COMMIT = re.compile(r"[0-9a-f]{40}")
_CACHED = "trees/{commit}.json"  # huggingface_hub's list of a commit's files


class HuggingFaceConfig(PluginConfig):
    """Which repository, at which commit."""

    repository: str = Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)?$", description="OWNER/NAME on the hub.")
    revision: str = Field(description="The commit: 40 hexadecimal digits; branches and tags move.")
    token: SecretStr | None = Field(
        default=None, description="`{secret: NAME}` for private and gated repositories; the variable holds the token."
    )

    @field_validator("revision")
    @classmethod
    def _pinned(cls, value: str) -> str:
        if not _COMMIT.fullmatch(value):
            raise ValueError(
                f"{value!r} is no commit: a branch or tag may move; give the 40 hexadecimal digits that the hub shows "
                "under `Files and versions`, `History`"
            )
        return value


class HuggingFace:
    """Downloads a repository once, at a commit; what the hub's cache has needs no network."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[HuggingFaceConfig]] = HuggingFaceConfig

    def __init__(self, config: HuggingFaceConfig) -> None:
        self._config = config

    def revision(self) -> str:
        """Returns the commit: git names content by it, so no server is asked."""
        return self._config.revision

    def fetch(self, revision: str, folder: Path) -> None:
        """Writes configuration, tokenizer and safetensors.

        Raises DataError where the hub refuses or cannot be reached, the model has pickle weights only, or transformers
        does not have its architecture.
        """
        if revision != self._config.revision:
            raise DataError("asks for another commit than the request", field="base.config.revision", given=revision)
        snapshot = self._download()
        self._require_safetensors(snapshot)
        config = snapshot / "config.json"
        require_native(config, name=self._config.repository, field="base.config.repository")
        copy_native((path for path in sorted(snapshot.iterdir()) if path.is_file() and path.suffix in KEPT), folder)

    def _download(self) -> Path:
        from huggingface_hub import errors, snapshot_download

        config = self._config
        try:
            found = snapshot_download(
                config.repository,
                revision=config.revision,
                allow_patterns=[f"*{suffix}" for suffix in KEPT],
                ignore_patterns=["*/*"],  # other formats of the same weights
                token=config.token.get_secret_value() if config.token else None,
                endpoint=os.environ.get("HF_ENDPOINT"),
                cache_dir=_cache(),
            )
        except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
            raise self._refused(
                "is not there, or not for this token",
                "check the name; for a private or gated repository ask for access and give `token: {secret: NAME}`",
            ) from error
        except errors.RevisionNotFoundError as error:
            raise self._refused(
                f"has no commit {config.revision}", "copy the commit from the hub's `History`"
            ) from error
        except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
            raise self._refused(
                "is not in the cache, and the hub is not reached",
                "let this machine reach the hub (HF_HUB_OFFLINE unset), mount a cache as HF_HOME, "
                "or bring the model as a folder",
            ) from error
        except Exception as error:  # what carries the bytes, and its errors, differ by version of the library
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise self._refused(f"cannot be fetched: {text}", "run again; what came is kept in the cache") from error
        return Path(str(found))

    def _require_safetensors(self, snapshot: Path) -> None:
        if (snapshot / "config.json").is_file() and any(snapshot.glob("*.safetensors")):
            return
        listed = snapshot.parent.parent / _CACHED.format(commit=self._config.revision)
        text = listed.read_text(encoding="utf-8") if listed.is_file() else ""
        if any(f'{suffix}"' in text for suffix in PICKLES):
            raise self._refused(
                "has pickle weights only, which are not opened",
                "name a commit with safetensors, or convert the weights on a machine of your own and use a folder",
            )
        raise self._refused("holds no model: config.json and *.safetensors", "name a repository of a model")

    def _refused(self, what: str, remedy: str) -> DataError:
        return DataError(
            f"{self._config.repository} {what}",
            code="base",
            field="base.config",
            given=self._config.repository,
            remedy=remedy,
        )


def _cache() -> Path:
    """Returns the hub's cache as its own variables name it, read now and not when the library was imported."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
