"""A training job on Ray Train: as many workers as the spec's *where* says, lost ones replaced.

Knows nothing about models; each worker calls `train`.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from espalier_runtime.job import Job, failure_of
from espalier_runtime.specs.models import WhereSpec
from espalier_sdk.errors import ClusterError, EspalierError, TrainingFailed

from espalier_training.job import TrainJob
from espalier_training.ray_storage import ray_storage
from espalier_training.shortage import CODE, remedy


def fit(train_job: TrainJob, where: WhereSpec, job: Job) -> dict[str, Any]:
    """Runs the job on Ray Train and returns the first worker's metrics; the model lies in `out`.

    Raises the worker's own EspalierError where it raised one, ClusterError where no workers could be had or one did not
    reach the store, DataError where its disk failed, else TrainingFailed.
    """
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    import ray
    import ray.train
    from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

    _check_capacity(where, train_job.threads)
    resources: dict[str, float] = {"CPU": where.cpus_per_worker or train_job.threads}
    if where.gpus_per_worker:
        resources["GPU"] = where.gpus_per_worker
    with ray_storage(job, "train") as storage:
        trainer = _trainer_class(grouped=where.workers > 1 or where.zero_stage > 0)(
            _worker,
            train_loop_config=asdict(train_job),
            scaling_config=ray.train.ScalingConfig(
                num_workers=where.workers, use_gpu=where.gpus_per_worker > 0, resources_per_worker=resources
            ),
            run_config=ray.train.RunConfig(
                **storage,
                failure_config=ray.train.FailureConfig(max_failures=where.max_failures, controller_failure_limit=3),
            ),
        )
        try:
            result = trainer.fit()
        except WorkerGroupError as error:
            raise _cause(error.worker_failures.values(), train_job) from error
        except ControllerError as error:
            raise _cause([error], train_job) from error
        if result.checkpoint is not None:  # the worker did not see `out`: it sent the model through Ray's storage
            with result.checkpoint.as_directory() as folder:
                shutil.copytree(folder, job.out, dirs_exist_ok=True)
    if "failed" in result.return_value:
        raise result.return_value["failed"]
    return dict(result.return_value)


def _trainer_class(*, grouped: bool) -> type[Any]:
    """Returns Ray's trainer: the one that makes a process group where several workers or ZeRO need it.

    With a group of one, transformers would wrap the model in DDP: 1.06 times slower.
    """
    if grouped:
        from ray.train.torch import TorchTrainer  # imports torch, two seconds

        return TorchTrainer
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    return DataParallelTrainer


def _worker(config: dict[str, Any]) -> dict[str, Any]:
    """What each Ray Train worker does: compare its plugins with the driver's, then train; returns the metrics."""
    import tempfile

    import ray.train
    from espalier_runtime.ray_session import require_same_plugins
    from espalier_sdk.artifacts import PluginUse

    from espalier_training.train import train

    job = TrainJob(**config)
    require_same_plugins([PluginUse.model_validate(use) for use in job.plugins])
    context = ray.train.get_context()
    out = Path(job.out)
    seen = out.is_dir()
    folder = out if seen else Path(tempfile.mkdtemp(prefix="espalier-model-"))
    try:
        metrics = train(job, out=folder, rank=context.get_world_rank())
    except EspalierError as error:
        if context.get_world_size() > 1:
            raise  # Ray ends the others: they wait for this one, half an hour, and would tell of that alone
        # An answer, not a failure: Ray would replace the worker and come to the same end again.
        return {"failed": error}
    if not seen:  # every worker reports, because `report` is a barrier; only the first one has files
        first = context.get_world_rank() == 0
        ray.train.report({}, checkpoint=ray.train.Checkpoint.from_directory(folder) if first else None)
    return metrics


def _check_capacity(where: WhereSpec, threads: int) -> None:
    """Refuses what this cluster can never place: Ray would wait for it for ever."""
    import ray

    have = ray.cluster_resources()
    need = {"CPU": where.workers * (where.cpus_per_worker or threads), "GPU": where.workers * where.gpus_per_worker}
    for resource, amount in need.items():
        if amount > have.get(resource, 0) and amount > 0:
            raise ClusterError(
                f"the cluster has {have.get(resource, 0):g} {resource}s, the candidate's `where` asks for {amount:g}",
                code="too_small",
                field="where",
                remedy="fewer workers, fewer CPUs or GPUs each, or a larger cluster",
            )


def _cause(errors: Any, job: TrainJob) -> EspalierError:
    """Returns the first error of the family behind Ray's, else what a disk or a network answered a worker.

    Without either it is a TrainingFailed with the last line of the first.
    """
    from ray.exceptions import OutOfMemoryError

    first: BaseException | None = None
    answered: OSError | None = None
    for error in errors:
        seen: BaseException | None = error
        while seen is not None:
            for one in (seen, getattr(seen, "cause", None), getattr(seen, "controller_failure", None)):
                if isinstance(one, EspalierError):
                    return one
                if isinstance(one, OutOfMemoryError):
                    return TrainingFailed(
                        "out of memory: Ray ended a worker before its node ran out", code=CODE, remedy=remedy(job)
                    )
            seen = seen.__cause__ or seen.__context__
        first = first or error
        answered = answered or (error if isinstance(error, OSError) else None)
    if answered:
        return failure_of(answered, str(answered.filename or job.store))
    text = str(first).strip().splitlines() or ["no reason given"]
    return TrainingFailed(f"training failed: {text[-1]}", remedy="`espalier logs` shows the worker's traceback")
