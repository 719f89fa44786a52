"""Performing a request: once, by one, whole or not at all."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from espalier_runtime.job import Job, Workplace, perform, request_lock
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef, ClusterError, DataError

_SCRIPT = Path(__file__).with_name("runtime_stage.py")
_spec = importlib.util.spec_from_file_location("runtime_stage", _SCRIPT)
assert _spec is not None and _spec.loader is not None
stage = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(stage)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.setenv("WORKED", str(tmp_path / "worked"))
    made: Workplace = stage.workplace(tmp_path)
    return made


def _failures(store: Store) -> list[dict[str, Any]]:
    found = sorted((Path(store.uri) / "attempts").glob("*/failure.json"))
    return [json.loads(path.read_text()) for path in found]


def test_the_same_request_is_worked_on_once(place: Workplace, tmp_path: Path) -> None:
    first, cached = perform(stage.request(), stage.work, place)
    again, again_cached = perform(stage.request(), stage.work, place)
    assert (cached, again_cached) == (False, True)
    assert again == first
    assert len((tmp_path / "worked").read_text().splitlines()) == 1
    assert first.metrics == {"rows": 3}
    assert [entry.path for entry in first.files] == ["first.txt", "second.txt"]


def test_what_is_left_for_afterwards_is_done_when_the_artifact_is_published_and_only_then(place: Workplace) -> None:
    seen = []

    def work(job: Job, *, fails: bool) -> dict[str, Any]:
        job.afterwards.append(lambda: seen.append(place.store.find_request(job.request.digest())))
        if fails:
            raise DataError("it broke")
        return dict(stage.work(job))

    with pytest.raises(DataError, match="it broke"):
        perform(stage.request(), lambda job: work(job, fails=True), place)
    assert seen == []
    manifest, _ = perform(stage.request(), lambda job: work(job, fails=False), place)
    assert seen == [manifest.ref()]


def test_another_request_is_worked_on(place: Workplace) -> None:
    first, _ = perform(stage.request(), stage.work, place)
    other, cached = perform(stage.request(what={"rows": 4}), stage.work, place)
    assert not cached
    assert other.ref() != first.ref()


def test_a_source_that_cannot_tell_its_state_is_read_again_to_the_same_artifact(
    place: Workplace, tmp_path: Path
) -> None:
    request = stage.request(resolved={"sources[0]": None})
    first, _ = perform(request, stage.work, place)
    second, cached = perform(request, stage.work, place)
    assert not cached
    assert second.ref() == first.ref()
    assert len((tmp_path / "worked").read_text().splitlines()) == 2


def test_provenance_says_what_was_asked_and_how_long_it_took(place: Workplace) -> None:
    manifest, _ = perform(stage.request(), stage.work, place)
    assert manifest.provenance["request"] == stage.request().digest()
    assert manifest.provenance["components"]["what"] == {"rows": 3}
    assert manifest.provenance["seconds"] >= 0


@pytest.mark.parametrize(
    ("error", "raised", "code", "retryable"),
    [
        (DataError("is empty", code="empty", file="a.csv"), DataError, "empty", False),
        (ClusterError("a node is gone", retryable=True), ClusterError, "cluster", True),
        (OSError(errno.ENOSPC, "No space left on device"), DataError, "disk_full", False),
        (ConnectionResetError("reset by peer"), ClusterError, "unreachable", True),
        (TimeoutError("no answer"), ClusterError, "unreachable", True),
        (KeyError("a defect"), KeyError, "internal", False),
    ],
)
def test_a_failing_stage_leaves_its_failure_and_no_artifact(
    place: Workplace, error: Exception, raised: type[Exception], code: str, retryable: bool
) -> None:
    def fail(job: Job) -> dict[str, Any]:
        (job.out / "half.txt").write_text("half")
        raise error

    with pytest.raises(raised):
        perform(stage.request(), fail, place)
    assert [(one["code"], one["retryable"]) for one in _failures(place.store)] == [(code, retryable)]
    assert list(place.store.refs()) == []
    assert perform(stage.request(), stage.work, place)[1] is False


def test_a_damaged_input_stops_it_before_an_attempt_is_made(place: Workplace) -> None:
    manifest, _ = perform(stage.request(), stage.work, place)
    file = place.store.open_artifact(manifest.ref()).folder / "first.txt"
    file.write_text("fIrst")
    request = stage.request(kind="dataset", stage="preprocess", inputs={"corpus": manifest.ref()})
    with pytest.raises(DataError, match=r"first\.txt differs"):
        perform(request, stage.work, place)
    assert len(list((Path(place.store.uri) / "attempts").iterdir())) == 1


def test_an_absent_input_is_named(place: Workplace) -> None:
    request = stage.request(inputs={"corpus": ArtifactRef(kind="corpus", name="gone", digest="0" * 64)})
    with pytest.raises(DataError, match=r"corpus/gone@0+ is not in the store"):
        perform(request, stage.work, place)


def test_a_stage_may_have_another_request_made(place: Workplace) -> None:
    def outer(job: Job) -> dict[str, Any]:
        inner = job.make(stage.request(what={"rows": 1}), stage.work)
        (job.out / "from-inner.txt").write_bytes((inner.folder / "first.txt").read_bytes())
        return {}

    manifest, _ = perform(stage.request(stage="train"), outer, place)
    assert [entry.path for entry in manifest.files] == ["from-inner.txt"]
    assert len(list(place.store.refs())) == 2


def test_a_home_that_is_a_file_is_one_clear_error(place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(DataError) as error:
        perform(stage.request(), stage.work, place)
    assert error.value.problems[0].remedy


def _start(folder: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(_SCRIPT), str(folder)],
        env=os.environ | {"WORKED": str(folder / "worked")} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.02)


def test_of_two_processes_one_works_and_the_other_finds_it(tmp_path: Path) -> None:
    processes = [_start(tmp_path, PAUSE="0.5") for _ in range(2)]
    answers = [process.communicate(timeout=60)[0].split() for process in processes]
    assert {ref for ref, _ in answers} == {answers[0][0]}
    assert sorted(cached for _, cached in answers) == ["False", "True"]
    assert len((tmp_path / "worked").read_text().splitlines()) == 1


def test_what_was_killed_in_the_middle_is_made_anew_with_the_same_digest(tmp_path: Path, place: Workplace) -> None:
    killed = _start(tmp_path, PAUSE="60")
    _wait_for(tmp_path / "worked")
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    assert list(place.store.refs()) == []
    assert place.store.find_request(stage.request().digest()) is None
    ref, cached = _start(tmp_path).communicate(timeout=60)[0].split()
    assert cached == "False"
    other = stage.workplace(tmp_path / "unbroken")
    assert ref == str(perform(stage.request(), stage.work, other)[0].ref())
    assert place.store.verify(ArtifactRef.parse(ref)) is None
    half = list(place.store.abandoned(older_than_seconds=-60))
    assert len(half) == 1
    assert place.store.discard(half[0]) > 0
    assert place.store.verify(ArtifactRef.parse(ref)) is None


def test_the_lock_of_one_request_does_not_hold_another(tmp_path: Path) -> None:
    with request_lock(tmp_path, "a" * 64), request_lock(tmp_path, "b" * 64):
        pass


def test_who_waits_for_another_process_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    code = (
        "import sys; from pathlib import Path; from espalier_runtime.job import request_lock\n"
        "with request_lock(Path(sys.argv[1]), 'a' * 64): print('on', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == "on\n"

    def hear() -> None:
        told.append("waiting")
        holder.stdin.close()

    with request_lock(tmp_path, "a" * 64, on_wait=hear):
        assert told == ["waiting"]
    holder.wait(timeout=10)
    with request_lock(tmp_path, "a" * 64, on_wait=hear):
        assert told == ["waiting"]


def test_what_a_stage_makes_on_its_way_is_leased_while_it_works(place: Workplace) -> None:
    leased: list[set[ArtifactRef]] = []

    def outer(job: Job) -> dict[str, Any]:
        made = job.make(stage.request(name="inner"), stage.work)
        leased.append(place.store.leased(within_seconds=60))
        assert made.ref in leased[0]
        return {}

    perform(stage.request(what={"outer": True}), outer, place)
    assert len(leased) == 1
