"""What a submission takes along: equal folders give equal bytes, and come out as they went in."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from espalier_pipeline.packing import bundle, unbundle, write_request
from espalier_sdk.errors import DataError


def filled(folder: Path, text: str = "a,b\n1,2\n") -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "spec.yaml").write_text("name: x\n")
    (folder / "deep" / "rows.csv").write_text(text)
    write_request(folder, {"spec": "spec.yaml", "overrides": [], "plugins": []})
    return folder


def test_equal_folders_give_equal_bytes_whenever_they_were_written(tmp_path: Path) -> None:
    one, other = filled(tmp_path / "one"), filled(tmp_path / "other")
    os.utime(other / "spec.yaml", (1, 1))
    (other / "spec.yaml").chmod(0o600)
    assert bundle(one, tmp_path / "one.tgz") == bundle(other, tmp_path / "other.tgz")
    assert (tmp_path / "one.tgz").read_bytes() == (tmp_path / "other.tgz").read_bytes()
    assert bundle(filled(tmp_path / "third", "a,b\n1,3\n"), tmp_path / "third.tgz") != bundle(one, tmp_path / "1.tgz")


def test_what_is_bundled_comes_out_again(tmp_path: Path) -> None:
    bundle(filled(tmp_path / "one"), tmp_path / "one.tgz")
    request = unbundle(tmp_path / "one.tgz", tmp_path / "out")
    assert request == {"spec": "spec.yaml", "overrides": [], "plugins": []}
    assert (tmp_path / "out" / "deep" / "rows.csv").read_text() == "a,b\n1,2\n"


def test_what_would_leave_the_folder_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.tgz"
    with tarfile.open(bad, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../outside"))
    with pytest.raises(DataError, match="no file of a spec's folder"):
        unbundle(bad, tmp_path / "out")
    assert not (tmp_path / "outside").exists()
