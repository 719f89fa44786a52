"""Training that goes on from an object store where a machine's disk is lost, and on machines with no disk in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
import torch
from espalier_runtime import shelf
from espalier_runtime.store import Store
from espalier_runtime.testing import s3_store
from espalier_training.checkpoints import commit
from espalier_training.job import TrainJob
from espalier_training.remote import RemoteCheckpoints, forget
from espalier_training.train import train

from .made import content, make
from .test_training_resume import broken


@pytest.fixture(scope="module")
def uri() -> Iterator[str]:
    with s3_store() as found:
        if found is None:
            pytest.skip("moto's server is not installed: nothing is tried on S3")
        yield found


@pytest.fixture(scope="module")
def job(uri: str, tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    torch.set_num_threads(1)
    made = make(tmp_path_factory.mktemp("remote"), Store.open(uri)).job
    return replace(made, checkpoint_steps=3)  # 12 steps, 6 in an epoch


@pytest.fixture(autouse=True)
def nothing_before(job: TrainJob) -> None:
    """Each test begins without checkpoints."""
    shelf.remove(Store.open(job.store), f"{shelf.CHECKPOINTS}/{job.request}")


@pytest.fixture
def unbroken(job: TrainJob, tmp_path: Path) -> Mapping[str, bytes]:
    train(replace(job, checkpoints=None), out=tmp_path / "unbroken")
    return content(tmp_path / "unbroken")


def lost(job: TrainJob, home: Path) -> TrainJob:
    """Returns the job as a new machine has it: with an empty disk."""
    return replace(job, checkpoints=str(home))


def kept(job: TrainJob) -> list[str]:
    return sorted(shelf.folders(Store.open(job.store), f"{shelf.CHECKPOINTS}/{job.request}"))


def test_a_new_machine_goes_on_from_the_store_to_the_same_bytes(
    job: TrainJob, unbroken: Mapping[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(lost(job, tmp_path / "first"), 10, monkeypatch, out=tmp_path / "nothing")
    assert kept(job) == ["checkpoint-6", "checkpoint-9"]
    metrics = train(lost(job, tmp_path / "second"), out=tmp_path / "resumed")
    assert metrics["resumed_at"] == 9
    assert content(tmp_path / "resumed") == unbroken
    assert not (tmp_path / "second").exists()


def test_a_model_that_is_lost_before_it_is_published_costs_no_more_than_a_checkpoint(
    job: TrainJob, unbroken: Mapping[str, bytes], tmp_path: Path
) -> None:
    train(lost(job, tmp_path / "first"), out=tmp_path / "first model")
    assert kept(job) == ["checkpoint-6", "checkpoint-9"]
    assert train(lost(job, tmp_path / "second"), out=tmp_path / "resumed")["resumed_at"] == 9
    assert content(tmp_path / "resumed") == unbroken
    forget(tmp_path / "second", Store.open(job.store), job.request)
    assert kept(job) == []


def test_what_is_damaged_in_the_store_is_passed_over(
    job: TrainJob, unbroken: Mapping[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(lost(job, tmp_path / "first"), 10, monkeypatch, out=tmp_path / "nothing")
    path = f"{shelf.CHECKPOINTS}/{job.request}/checkpoint-9/trained.safetensors"
    shelf.put(Store.open(job.store), path, [b"other bytes"])
    assert train(lost(job, tmp_path / "second"), out=tmp_path / "resumed")["resumed_at"] == 6
    assert content(tmp_path / "resumed") == unbroken


def test_the_best_weights_until_now_come_along(job: TrainJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wild = job.training | {"max_steps": 40, "validations": 20, "early_stopping": 6, "learning_rate": 0.3}
    job = replace(job, training=wild)
    whole = train(replace(job, checkpoints=None), out=tmp_path / "unbroken")
    assert whole["best_step"] + 4 < whole["steps"], "the best comes long before the end, or nothing is tried"
    broken(lost(job, tmp_path / "first"), whole["steps"] - 1, monkeypatch, out=tmp_path / "nothing")
    metrics = train(lost(job, tmp_path / "second"), out=tmp_path / "resumed")
    assert metrics["best_step"] == whole["best_step"] < metrics["resumed_at"]
    assert content(tmp_path / "resumed") == content(tmp_path / "unbroken")


def test_what_is_brought_by_name_takes_the_place_of_all_that_is_there(job: TrainJob, tmp_path: Path) -> None:
    remote = RemoteCheckpoints.of(job)
    assert remote
    for step in (3, 9):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_text(str(step))
        commit(folder, seconds=step, request=job.request, world=job.world)
        remote.push(folder)
        remote.commit(folder)
    remote.adopt(tmp_path / "checkpoint-3")
    found = remote.newest(tmp_path / "elsewhere")
    assert found and (found.step, found.seconds) == (3, 3.0)
    assert (found.folder / "weights").read_text() == "3"
    assert kept(job) == ["checkpoint-3"]
    remote.remove()


def test_a_store_that_is_away_ends_the_worker_and_is_no_answer(tmp_path: Path) -> None:
    nobody = pafs.S3FileSystem(
        endpoint_override="127.0.0.1:1",
        scheme="http",
        connect_timeout=1,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=1),
    )
    remote = RemoteCheckpoints(Store(nobody, "bucket/store", uri="s3://bucket/store"), "ab" * 32)
    with pytest.raises(ConnectionError, match="checkpoints cannot be kept"):
        remote.newest(tmp_path)
    remote.tell({"step": 1})  # that nobody hears of it ends nothing
    assert remote.told() == ""


def test_where_the_store_is_a_folder_checkpoints_lie_in_the_home(job: TrainJob, tmp_path: Path) -> None:
    assert RemoteCheckpoints.of(replace(job, store=str(tmp_path))) is None
    assert RemoteCheckpoints.of(replace(job, checkpoints=None)) is None


def test_two_machines_without_a_common_disk_go_on_together(job: TrainJob, tmp_path: Path) -> None:
    told = _together(_go_on, job, tmp_path)
    newest = ["checkpoint-6", "checkpoint-9"]
    assert told == {0: (newest, newest, 9), 1: (newest, newest, 9)}, "older ones are gone, on the second machine too"
    assert content(tmp_path / "resumed") == content(tmp_path / "unbroken")


def test_each_machine_takes_the_best_weights_from_its_own_disk(job: TrainJob, tmp_path: Path) -> None:
    wild = job.training | {"max_steps": 40, "validations": 20, "early_stopping": 6, "learning_rate": 0.3}
    told = _together(_stop_early, replace(job, training=wild), tmp_path)
    whole, resumed, bests = told[0]
    assert whole["best_step"] + 4 < whole["steps"], "the best comes long before the end, or nothing is tried"
    assert resumed["best_step"] == whole["best_step"] < resumed["resumed_at"]
    assert content(tmp_path / "resumed") == content(tmp_path / "unbroken")
    assert bests == [f"best-{whole['best_step']}"], "what is no longer the best is gone, on the second machine too"
    assert told[1][2] == bests


def _together(work: Callable[[TrainJob, int, Path], Any], job: TrainJob, folder: Path) -> dict[int, Any]:
    """Has two workers do something, each as if on a machine of its own; returns what they came to, by rank."""
    import torch.multiprocessing as multiprocessing

    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    shared = replace(job, workers=2, micro_batch_size=4, accumulation=1)
    machines = [context.Process(target=_machine, args=(work, shared, rank, folder, queue)) for rank in (0, 1)]
    for machine in machines:
        machine.start()
    told = dict(queue.get() for _ in machines)
    for machine in machines:
        machine.join(60)
    return told


def _machine(work: Callable[[TrainJob, int, Path], Any], job: TrainJob, rank: int, folder: Path, queue: Any) -> None:
    import torch.distributed as dist

    os.environ.update(LOCAL_RANK="0", RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    os.environ["ESPALIER_CACHE"] = str(folder / f"cache-{rank}")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    told = None
    try:
        told = work(job, rank, folder)
    finally:
        queue.put((rank, told))
        dist.destroy_process_group()


def _out(folder: Path, name: str, rank: int) -> Path:
    return folder / name if rank == 0 else folder / f"nothing-{name}"


def _go_on(job: TrainJob, rank: int, folder: Path) -> Any:
    """Trains, is broken off, loses its disk, goes on; returns what store and disk had then, and where it went on."""
    import torch.distributed as dist

    train(replace(job, checkpoints=None), out=_out(folder, "unbroken", rank), rank=rank)
    with pytest.MonkeyPatch.context() as patch:
        broken(lost(job, folder / f"first-{rank}"), 10, patch, out=_out(folder, "nothing", rank), rank=rank)
    there, here = kept(job), sorted(path.name for path in (folder / f"first-{rank}").glob("checkpoint-*"))
    dist.barrier()
    again = train(lost(job, folder / f"second-{rank}"), out=_out(folder, "resumed", rank), rank=rank)
    return there, here, again["resumed_at"]


def _stop_early(job: TrainJob, rank: int, folder: Path) -> Any:
    """Trains to an early end, and again, broken off before it; returns both measures and the best that lay there."""
    import torch.distributed as dist

    whole = train(lost(job, folder / f"whole-{rank}"), out=_out(folder, "unbroken", rank), rank=rank)
    dist.barrier()
    if rank == 0:
        forget(folder / "whole-0", Store.open(job.store), job.request)
    dist.barrier()
    home = folder / f"first-{rank}"
    (home / "best-1").mkdir(parents=True)  # of a worker that was lost
    with pytest.MonkeyPatch.context() as patch:
        broken(lost(job, home), whole["steps"] - 1, patch, out=_out(folder, "nothing", rank), rank=rank)
    bests = sorted(path.name for path in home.glob("best-*"))
    dist.barrier()
    resumed = train(lost(job, folder / f"second-{rank}"), out=_out(folder, "resumed", rank), rank=rank)
    return whole, resumed, bests
