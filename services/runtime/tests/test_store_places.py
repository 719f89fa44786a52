"""Places that a store cannot use: files, addresses that are none, disks that are full or read-only, nobody there."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from espalier_runtime import store as store_module
from espalier_runtime.store import Store, disk_error
from espalier_sdk import DataError

from .test_store import REQUEST, publish, write


def test_a_file_where_the_store_should_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(DataError) as error:
            Store.open(str(place))
        problem = error.value.problems[0]
        assert (error.value.exit_code, problem.code) == (4, "store")
        assert str(tmp_path / "file") in str(problem.file)
        assert problem.remedy


def test_a_folder_that_became_a_file_is_one_clear_error(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "store" / "attempts").touch()
    with pytest.raises(DataError) as error:
        store.begin(REQUEST)
    assert error.value.problems[0].remedy


@pytest.mark.parametrize("uri", ["nowhere://bucket/x", "s3://"])
def test_an_address_that_is_none_is_one_clear_error(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with pytest.raises(DataError, match="store cannot be opened"):
        Store.open(uri)


def _mount(folder: Path, options: str) -> None:
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount here: a full and a read-only disk are tried with a fake only")
    run = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if run.returncode:
        pytest.skip("tmpfs cannot be mounted here: a full and a read-only disk are tried with a fake only")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    _mount(folder, "size=64k")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_as_such_and_what_was_there_stays_whole(small_disk: Path) -> None:
    store = Store.open(str(small_disk))
    manifest = publish(store, files={"a": b"x" * 100})
    attempt = store.begin("cd" * 32)
    with pytest.raises(OSError, match="No space left"):
        (attempt.folder / "large").write_bytes(b"x" * 100_000)
    with pytest.raises(DataError, match="the disk is full") as error:
        attempt.publish(kind="dataset", name="tickets", what={"large": True})
    attempt.fail("{}")
    attempt.close()
    assert error.value.problems[0].code == "disk_full"
    assert store.find_request("cd" * 32) is None
    assert store.verify(manifest.ref()) is None


def test_a_store_on_a_read_only_disk_is_one_clear_error(small_disk: Path) -> None:
    store = Store.open(str(small_disk / "store"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(DataError, match="cannot be written or read: Read-only file system") as error:
        store.begin(REQUEST)
    assert error.value.problems[0].code == "store_not_writable"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (OSError("Error writing: [errno 28] No space left on device"), "disk_full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk_full"),
        (PermissionError(errno.EACCES, "Permission denied"), "store_not_writable"),
        (OSError("AWS Error ACCESS_DENIED during PutObject operation"), "store_not_writable"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a/b"), "store"),
    ],
)
def test_each_answer_of_a_disk_has_its_code_and_a_remedy(error: OSError, code: str) -> None:
    problem = disk_error(error, "/store").problems[0]
    assert (problem.code, problem.file) == (code, "a/b" if error.filename else "/store")
    assert problem.remedy


def test_a_disk_that_fills_while_a_manifest_is_written_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(str(tmp_path / "store"))
    attempt = store.begin(REQUEST)
    write(attempt)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module.os, "fsync", full)
    with pytest.raises(DataError, match="the disk is full"):
        attempt.publish(kind="dataset", name="tickets")
    attempt.close()
    assert list(store.refs()) == []
    assert store.find_request(REQUEST) is None


def test_an_unreachable_object_store_is_not_taken_for_an_absent_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(str(tmp_path / "store"))
    ref = publish(store).ref()

    class Down:
        def get_file_info(self, path: object) -> None:
            raise OSError("connection refused")

    monkeypatch.setattr(store, "_fs", Down())
    for ask in (
        lambda: store.verify(ref),
        lambda: list(store.abandoned(older_than_seconds=0)),
        lambda: store.find_request(REQUEST),
    ):
        with pytest.raises(DataError, match="connection refused"):
            ask()
