"""A base in a folder: its revision is its content, and pickle is not opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from espalier_hub import Folder
from espalier_sdk import DataError
from espalier_sdk.testing import check_base_model
from espalier_sdk.testing.tiny import write_base


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_base(folder)
    return folder


def _copy(model: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def _folder(path: Path) -> Folder:
    return Folder(Folder.Config(path=str(path)))


def test_folder_passes_its_kit(model: Path, tmp_path: Path) -> None:
    check_base_model("folder", config={"path": str(model)}, refused=[{}, {"path": str(tmp_path / "absent")}])


def test_revision_follows_the_content_not_the_place(model: Path, tmp_path: Path) -> None:
    copy = _copy(model, tmp_path / "copy")
    assert _folder(copy).revision() == _folder(model).revision()
    config = copy / "config.json"
    config.write_bytes(config.read_bytes() + b"\n")
    assert _folder(copy).revision() != _folder(model).revision()


def test_pickle_and_code_are_neither_copied_nor_counted(model: Path, tmp_path: Path) -> None:
    copy = _copy(model, tmp_path / "copy")
    for name in ("pytorch_model.bin", "modeling.py", "training_args.bin", "optimizer.pt", ".cache"):
        (copy / name).write_bytes(b"anything")
    assert _folder(copy).revision() == _folder(model).revision()
    out = tmp_path / "out"
    out.mkdir()
    _folder(copy).fetch(_folder(model).revision(), out)
    assert {path.name for path in out.iterdir()} == {path.name for path in model.iterdir()}


def test_folder_that_changed_since_the_request_is_refused(model: Path, tmp_path: Path) -> None:
    copy = _copy(model, tmp_path / "copy")
    revision = _folder(copy).revision()
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(DataError, match="changed since the request was made"):
        _folder(copy).fetch(revision, tmp_path)


def test_folder_of_pickle_is_refused_with_the_way_out(model: Path, tmp_path: Path) -> None:
    copy = _copy(model, tmp_path / "copy")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(DataError, match="convert the weights to safetensors; pickle is not opened") as refused:
        _folder(copy).revision()
    assert refused.value.problems[0].field == "base.config.path"


def _tell(folder: Path, name: str, **more: Any) -> None:
    said = json.loads((folder / name).read_text(encoding="utf-8"))
    (folder / name).write_text(json.dumps(said | more), encoding="utf-8")


def test_code_is_asked_for_by_no_file_of_a_fetched_base(model: Path, tmp_path: Path) -> None:
    copy, out = _copy(model, tmp_path / "copy"), tmp_path / "out"
    _tell(copy, "config.json", auto_map={"AutoModelForSequenceClassification": "other/code--modeling.Ours"})
    _tell(copy, "tokenizer_config.json", auto_map={"AutoTokenizer": ["other/code--tokens.Ours", None]})
    out.mkdir()
    _folder(copy).fetch(_folder(copy).revision(), out)
    assert not [path.name for path in out.glob("*.json") if b"auto_map" in path.read_bytes()]
    assert (out / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()


def test_an_architecture_that_transformers_has_not_is_refused(model: Path, tmp_path: Path) -> None:
    copy, out = _copy(model, tmp_path / "copy"), tmp_path / "out"
    _tell(copy, "config.json", model_type="ours", auto_map={"AutoConfig": "modeling.Ours"})
    out.mkdir()
    with pytest.raises(DataError, match="brings its architecture as code, which is never run") as refused:
        _folder(copy).fetch(_folder(copy).revision(), out)
    assert refused.value.problems[0].field == "base.config.path"
    assert not list(out.iterdir())


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DataError, match="save_pretrained"):
        _folder(file).revision()
