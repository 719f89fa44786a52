"""The store on a folder and on S3: attempts, manifests, pointers, damage, and what is swept."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from espalier_runtime.store import Attempt, Store
from espalier_sdk import ArtifactRef, DataError, Manifest

REQUEST = "ab" * 32
FILES = {
    "part-00000.parquet": b"one" * 1000,
    "deep/part-00001.parquet": b"two",
    "empty": b"",
    "lines.txt.gz": b"its name says more than it is" * 10,  # pyarrow would compress it, by its name
}


def write(attempt: Attempt, files: dict[str, bytes] = FILES) -> None:
    for name, data in files.items():
        path = attempt.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def publish(store: Store, request: str = REQUEST, files: dict[str, bytes] = FILES, **fields: Any) -> Manifest:
    attempt = store.begin(request)
    write(attempt, files)
    (attempt.beside / "report.html").write_text("at noon")
    return attempt.publish(**{"kind": "dataset", "name": "tickets"} | fields)


def _attempt(manifest: Manifest) -> str:
    return str(manifest.provenance["attempt"])


def _change(store: Store, relative: str, change: Any) -> None:
    """Replaces a file of the store behind its back."""
    path = store._path(relative)
    with store._fs.open_input_stream(path) as stream:
        data = bytearray(stream.read())
    changed = change(data)
    with store._fs.open_output_stream(path) as stream:
        stream.write(bytes(changed if changed is not None else data))


def _flip(data: bytearray) -> None:
    data[len(data) // 2] ^= 1


def test_what_was_published_is_found_by_its_request_and_read_back(store: Store) -> None:
    assert store.find_request(REQUEST) is None
    manifest = publish(store, metrics={"rows": 3})
    assert store.find_request(REQUEST) == manifest.ref()
    opened = store.open_artifact(manifest.ref())
    assert {entry.path: (opened.folder / entry.path).read_bytes() for entry in opened.manifest.files} == FILES
    assert opened.manifest.metrics == {"rows": 3}
    assert list(store.refs()) == [manifest.ref()] == list(store.refs("dataset"))
    assert store.verify(manifest.ref()) is None


def test_files_beside_the_manifest_do_not_enter_the_digest(folder_store: Store) -> None:
    manifest = publish(folder_store)
    assert [entry.path for entry in manifest.files] == sorted(FILES)
    info = folder_store._info(f"attempts/{_attempt(manifest)}/beside/report.html")
    assert info.is_file


def test_nothing_is_found_before_publish(folder_store: Store) -> None:
    attempt = folder_store.begin(REQUEST)
    write(attempt)
    assert folder_store.find_request(REQUEST) is None
    assert list(folder_store.refs()) == []
    attempt.close()


def test_a_reference_may_be_shortened_to_eight_digits(folder_store: Store) -> None:
    ref = publish(folder_store).ref()
    assert folder_store.resolve(f"dataset/tickets@{ref.digest[:8]}") == ref
    assert folder_store.resolve(str(ref)) == ref


@pytest.mark.parametrize(
    "text", ["dataset/tickets@1234567", "dataset/tickets", "house/x@12345678", "dataset/x@zzzzzzzz"]
)
def test_a_text_that_is_no_reference_is_refused(folder_store: Store, text: str) -> None:
    with pytest.raises(DataError, match="is no reference"):
        folder_store.resolve(text)


def test_a_reference_to_nothing_is_refused_with_what_is_there(folder_store: Store) -> None:
    ref = publish(folder_store).ref()
    with pytest.raises(DataError, match="names no artifact of this store") as error:
        folder_store.resolve("dataset/tickets@00000000")
    assert ref.short() in (error.value.problems[0].accepted or "")


def test_a_kind_of_which_there_is_none_yet_is_told_beside_runs(folder_store: Store) -> None:
    publish(folder_store)
    with pytest.raises(DataError) as raised:
        folder_store.resolve("model/lora@00000000")
    (problem,) = raised.value.problems
    assert problem.accepted is None
    assert problem.remedy == "there is no model yet; `espalier runs ID` lists what a run made"


def test_the_last_complete_writer_of_a_request_wins_and_both_stay_valid(store: Store) -> None:
    first = publish(store, what={"by": "first"})
    second = publish(store, what={"by": "second"})
    assert store.find_request(REQUEST) == second.ref() != first.ref()
    assert store.verify(first.ref()) is None
    assert store.verify(second.ref()) is None


def test_equal_content_keeps_the_first_writers_manifest(folder_store: Store) -> None:
    first = publish(folder_store)
    second = publish(folder_store, request="cd" * 32)
    assert second == first
    assert folder_store.find_request("cd" * 32) == first.ref()


def test_equal_content_replaces_a_manifest_whose_files_are_damaged(store: Store) -> None:
    first = publish(store)
    _change(store, f"attempts/{_attempt(first)}/files/part-00000.parquet", _flip)
    second = publish(store)
    assert second.ref() == first.ref()
    assert _attempt(second) != _attempt(first)
    assert store.verify(second.ref()) is None


def test_a_flipped_byte_is_found_and_the_file_named(store: Store) -> None:
    manifest = publish(store)
    _change(store, f"attempts/{_attempt(manifest)}/files/deep/part-00001.parquet", _flip)
    assert store.verify(manifest.ref()) == "deep/part-00001.parquet differs from the manifest's SHA-256"
    with pytest.raises(DataError, match=r"deep/part-00001\.parquet differs from the manifest's SHA-256") as error:
        store.open_artifact(manifest.ref())
    assert error.value.exit_code == 4
    assert "verify --remove-damaged" in (error.value.problems[0].remedy or "")


def test_one_file_is_opened_without_the_others(store: Store) -> None:
    manifest = publish(store)
    _change(store, f"attempts/{_attempt(manifest)}/files/deep/part-00001.parquet", _flip)
    name = next(name for name in FILES if "/" not in name)
    opened = store.open_artifact(manifest.ref(), only=name)
    assert (opened.folder / name).read_bytes() == FILES[name]
    with pytest.raises(DataError, match="differs"):
        store.open_artifact(manifest.ref(), only="deep/part-00001.parquet")


def test_verify_looks_at_the_store_not_at_a_local_copy(store: Store) -> None:
    manifest = publish(store)
    store.open_artifact(manifest.ref())
    _change(store, f"attempts/{_attempt(manifest)}/files/deep/part-00001.parquet", _flip)
    assert "deep/part-00001.parquet" in str(store.verify(manifest.ref()))


def test_a_cut_file_and_a_missing_file_are_told_apart(store: Store) -> None:
    manifest = publish(store)
    place = f"attempts/{_attempt(manifest)}/files/part-00000.parquet"
    _change(store, place, lambda data: data[:10])
    assert store.verify(manifest.ref()) == "part-00000.parquet has 10 bytes, the manifest says 3000"
    store._fs.delete_file(store._path(place))
    assert store.verify(manifest.ref()) == "part-00000.parquet is missing"


@pytest.mark.parametrize("change", [_flip, lambda data: data[:40], lambda data: b"{}", lambda data: b""])
def test_a_damaged_manifest_is_never_accepted(folder_store: Store, change: Any) -> None:
    ref = publish(folder_store).ref()
    _change(folder_store, f"artifacts/dataset/tickets/{ref.digest}.json", change)
    with pytest.raises(DataError, match=r"the manifest of dataset/tickets@.* is damaged"):
        folder_store.manifest(ref)
    assert not folder_store.verify_manifest(ref)
    assert folder_store.verify(ref) == "the manifest is absent or damaged"


def test_an_absent_manifest_is_told_with_the_way_out(folder_store: Store) -> None:
    with pytest.raises(DataError, match="is not in the store") as error:
        folder_store.manifest(ArtifactRef(kind="model", name="x", digest="0" * 64))
    assert error.value.problems[0].remedy == "run its stage again"


def test_a_half_written_pointer_is_no_answer(folder_store: Store) -> None:
    publish(folder_store)
    _change(folder_store, f"requests/{REQUEST}.json", lambda data: data[:20])
    assert folder_store.find_request(REQUEST) is None


def test_a_removed_artifact_is_gone_whole_and_its_request_is_open_again(store: Store) -> None:
    manifest = publish(store)
    store.remove(manifest.ref())
    assert store.find_request(REQUEST) is None
    assert list(store.refs()) == []
    assert not store._info(f"attempts/{_attempt(manifest)}/files/empty").is_file


def test_a_damaged_artifact_can_be_removed_and_made_again(store: Store) -> None:
    manifest = publish(store)
    _change(store, f"artifacts/dataset/tickets/{manifest.ref().digest}.json", lambda data: data[:40])
    store.remove(manifest.ref())
    assert store.verify(publish(store).ref()) is None


def test_gc_finds_attempts_without_a_fresh_heartbeat_and_keeps_what_a_manifest_names(store: Store) -> None:
    manifest = publish(store)
    dead, alive = store.begin(REQUEST), store.begin(REQUEST)
    write(dead)
    write(alive)
    assert set(store.abandoned(older_than_seconds=3600)) == set()
    seconds = 0.5 if store.local else 3.0  # S3 tells whole seconds
    time.sleep(seconds + 0.1)
    alive._beat()
    assert set(store.abandoned(older_than_seconds=seconds)) == {dead.id}
    freed = store.discard(dead.id)
    assert freed >= (3003 if store.local else 1)
    assert not store._info(f"attempts/{dead.id}/heartbeat").is_file
    assert store.verify(manifest.ref()) is None
    dead.close()
    alive.close()


def test_gc_keeps_the_files_of_a_manifest_that_is_damaged(store: Store) -> None:
    manifest = publish(store)
    _change(
        store, f"artifacts/dataset/tickets/{manifest.ref().digest}.json", lambda d: d.replace(b"tickets", b"tockets")
    )
    assert not store.verify_manifest(manifest.ref())
    assert list(store.abandoned(older_than_seconds=-60)) == []  # -60: no heartbeat is fresh enough


def test_a_strangers_file_among_the_manifests_is_passed_over(folder_store: Store) -> None:
    ref = publish(folder_store).ref()
    folder_store._write("artifacts/dataset/tickets/NOTES.json", "{}")
    folder_store._write("artifacts/dataset/notes.json", "{}")
    assert list(folder_store.refs()) == [ref]


def test_a_failure_is_left_in_the_attempt(store: Store) -> None:
    attempt = store.begin(REQUEST)
    attempt.fail('{"code": "data"}')
    attempt.close()
    assert store._read_or_none(f"attempts/{attempt.id}/failure.json") == '{"code": "data"}'


def test_what_lies_beside_a_failed_attempt_can_be_read_where_its_address_says(store: Store) -> None:
    attempt = store.begin(REQUEST)
    (attempt.beside / "quarantine.jsonl").write_text("bad")
    attempt.fail("{}")
    attempt.close()
    assert attempt.beside_uri.endswith(f"attempts/{attempt.id}/beside")
    assert attempt.beside_uri.startswith(store.uri)
    assert store._read_or_none(f"attempts/{attempt.id}/beside/quarantine.jsonl") == "bad"


def test_what_an_attempt_at_work_reads_is_leased(store: Store) -> None:
    used, other = publish(store, "aa" * 32).ref(), publish(store, "bb" * 32, {"other": b"1"}).ref()
    attempt = store.begin(REQUEST, reads=[used])
    assert store.leased(within_seconds=60) == {used}
    attempt.read(other)
    assert store.leased(within_seconds=60) == {used, other}
    assert store.leased(within_seconds=-60) == set()
    attempt.close()


def test_many_files_stand_in_a_list_of_their_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espalier_runtime.attempt.MANY_FILES", 2)
    manifest = publish(store)
    assert manifest.files == ()
    assert manifest.file_list is not None
    assert (manifest.file_list.count, manifest.size_bytes) == (len(FILES), sum(map(len, FILES.values())))
    assert [entry.path for entry in store.files(manifest)] == sorted(FILES)
    opened = store.open_artifact(manifest.ref())
    assert (opened.folder / "deep" / "part-00001.parquet").read_bytes() == b"two"
    assert store.verify(manifest.ref()) is None


@pytest.mark.parametrize("change", [lambda data: b"PAR1", lambda data: data[:20]], ids=["another file", "cut"])
def test_a_damaged_list_of_files_is_found(store: Store, monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    monkeypatch.setattr("espalier_runtime.attempt.MANY_FILES", 2)
    manifest = publish(store)
    _change(store, f"attempts/{_attempt(manifest)}/files.parquet", change)
    assert "list of its files" in str(store.verify(manifest.ref()))
    with pytest.raises(DataError, match=r"list of files .* damaged"):
        store.open_artifact(manifest.ref())


def test_looking_at_a_store_does_not_make_it(tmp_path: Path) -> None:
    store = Store.look(str(tmp_path / "absent"))
    assert store.find_request(REQUEST) is None
    assert list(store.refs()) == []
    assert not (tmp_path / "absent").exists()


def test_a_remote_writer_leaves_nothing_in_the_temporary_folder(store: Store) -> None:
    attempt = store.begin(REQUEST)
    write(attempt)
    attempt.publish(kind="dataset", name="tickets")
    assert attempt.folder.exists() == store.local


def test_a_bucket_that_is_not_there_is_one_clear_error(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (("AWS_ENDPOINT_URL", s3), ("AWS_ACCESS_KEY_ID", "t"), ("AWS_SECRET_ACCESS_KEY", "t")):
        monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match="there is no bucket no-such-bucket"):
        Store.open("s3://no-such-bucket/store")


def test_the_heartbeat_names_its_process(folder_store: Store) -> None:
    attempt = folder_store.begin(REQUEST)
    beat = json.loads(folder_store._read_or_none(f"attempts/{attempt.id}/heartbeat") or "{}")
    attempt.close()
    assert beat["pid"] == os.getpid()
    assert beat["request"] == REQUEST
