"""The kit for sources of base models: a lasting revision, and a folder that transformers opens without pickle."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from espalier_sdk.errors import DataError, EspalierError
from espalier_sdk.testing.plugin import check_plugin
from espalier_sdk.testing.tiny import check_folder, contents, no_network, one_thread


@one_thread()
def check_base_model(
    name: str,
    *,
    config: Mapping[str, Any] | None = None,
    refused: Sequence[Mapping[str, Any]] = (),
    offline: bool = True,
) -> Any:
    """Checks a source of base models and returns the model that transformers opens from what it fetched.

    Its revision is the same when it is asked again; what it fetches is the same twice, holds config, tokenizer and
    safetensors and no pickle, code or absolute path, and opens without a network; another revision is refused; each
    config of `refused` is refused. With `offline`, revision and fetch open no connection.
    """
    plugin = check_plugin("espalier.base_models", name)
    checked = plugin.Config.model_validate(dict(config or {}))
    for wrong in refused:
        with pytest.raises((ValidationError, EspalierError)):
            plugin(plugin.Config.model_validate(dict(wrong))).revision()
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        first, second = Path(one), Path(other)
        with no_network() if offline else nullcontext():
            revision = plugin(checked).revision()
            assert isinstance(revision, str) and revision, f"{name}: revision() must be a text"
            source = plugin(checked)
            assert source.revision() == revision, f"{name}: asked again, the revision is another"
            source.fetch(revision, first)
            plugin(checked).fetch(revision, second)
        assert contents(first) == contents(second), f"{name}: fetching twice gives other bytes"
        with tempfile.TemporaryDirectory() as third, pytest.raises(DataError):
            plugin(checked).fetch(f"{revision}-of-another-model", Path(third))
        return _check_opens(name, first)


def _check_opens(name: str, folder: Path) -> Any:
    from transformers import AutoModel, AutoTokenizer

    check_folder(name, folder, folder, Path.home())
    code = [path for path in contents(folder) if path.endswith(".py")]
    assert not code, f"{name}: fetches code: {', '.join(code)}"
    assert (folder / "config.json").is_file(), f"{name}: config.json is missing"
    with no_network():
        model = AutoModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
        tokens = AutoTokenizer.from_pretrained(folder, local_files_only=True)(["a few words"], return_tensors="pt")
    assert max(tokens["input_ids"][0]) < model.config.vocab_size, f"{name}: the tokenizer is another model's"
    model.eval()(**tokens)
    return model
