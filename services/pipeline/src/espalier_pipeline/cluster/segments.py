"""Segments: runs of stages that share image and pool, and the RayJob of each. Pure: asks neither cluster nor store."""

from __future__ import annotations

import copy
import hashlib
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from espalier_runtime.specs import Spec
from espalier_runtime.specs.reading import candidate_order
from espalier_sdk.errors import SpecError

from espalier_pipeline.cluster.access import Installation
from espalier_pipeline.packing import SUBMISSIONS

CPU_POOL = "cpu"
LABEL = "espalier.dev/submission"
_JOB_NAME = 47  # KubeRay refuses a longer name of a RayJob, and tells it in an event alone
_SUFFIX = 16  # of which a segment's name takes its part


@dataclass(frozen=True, slots=True)
class Segment:
    """What one RayJob does: the arguments of `espalier run`, where, and with how many workers beside the head."""

    name: str
    pool: str
    arguments: tuple[str, ...] = ()
    workers: int = 0


def waves(spec: Spec, installation: Installation) -> list[list[Segment]]:
    """Returns the segments of a spec, wave after wave; those of one wave can run beside each other.

    All on the CPU pool is one segment. Else data come first, then each candidate of another pool after those that it
    refers to, and what is left, evaluation and proposal with it, last. SpecError names a pool that there is not.
    """
    placed = {name: pool_of(spec, name, installation) for name in spec.candidates}
    own = {name for name, pool in placed.items() if pool != CPU_POOL}
    all_workers = _most(installation, CPU_POOL)
    if not own:
        return [[Segment("all", CPU_POOL, workers=all_workers)]]
    for name in sorted(own):
        if spec.candidates[name].learning_curve:
            raise SpecError(
                f"candidate {name} is trained on pool {placed[name]}, and its learning curve would be on {CPU_POOL}",
                field=f"candidates.{name}.learning_curve",
                remedy="leave the curve out, or train the candidate on the CPU pool",
            )
    for name in reversed(candidate_order(spec)):  # what those refer to is trained before them, on its own pool
        if name in own:
            own |= set(spec.candidates[name].references().values())
    level: dict[str, int] = {}
    for name in candidate_order(spec):
        level[name] = 1 + max((level[one] for one in spec.candidates[name].references().values()), default=0)
    found = [[Segment("data", CPU_POOL, ("--only", "preprocess"), all_workers)]]
    for depth in sorted({level[name] for name in own}):
        wave = [name for name in candidate_order(spec) if name in own and level[name] == depth]
        found.append([_training(spec, name, placed[name], installation) for name in wave])
    return [*found, [Segment("rest", CPU_POOL, workers=all_workers)]]


def pool_of(spec: Spec, name: str, installation: Installation) -> str:
    """Returns the pool that trains a candidate: the one it names, else the first with GPUs if it wants some, else CPU.

    Raises SpecError where there is none.
    """
    where = spec.candidates[name].where
    if where.pool is not None:
        if where.pool not in installation.pools:
            raise SpecError(
                f"candidate {name}: there is no pool {where.pool!r}",
                code="unknown_pool",
                field=f"candidates.{name}.where.pool",
                given=where.pool,
                accepted=", ".join(sorted(installation.pools)),
                remedy="name one of these, or add it to the chart's values: pools",
            )
        return where.pool
    if not where.gpus_per_worker:
        return CPU_POOL
    for pool, settings in sorted(installation.pools.items()):
        if settings.get("gpus", 0) >= 1:
            return pool
    raise SpecError(
        f"candidate {name} wants GPUs, and no pool has any",
        code="unknown_pool",
        field=f"candidates.{name}.where.gpus_per_worker",
        given=where.gpus_per_worker,
        remedy="enable a pool with GPUs in the chart's values: pools; or train on CPU: gpus_per_worker: 0",
    )


def job_name(identity: str, segment: Segment, attempt: int) -> str:
    """Returns the name of a segment's RayJob: always the same for the same submission, segment and attempt."""
    plain = len(segment.name) <= _SUFFIX - 4 and not segment.name.endswith("-")
    suffix = segment.name if plain else hashlib.sha256(segment.name.encode()).hexdigest()[:8]
    return f"{identity}-{suffix}" + (f"-r{attempt}" if attempt else "")


def identity_of(name: str, sha256: str) -> str:
    """Returns the name of a submission, and of its driver's Job: from the spec's name and what was sent."""
    head = name if name[0].isalpha() else f"run-{name}"  # the name of a RayJob begins with a letter
    return f"{head[: _JOB_NAME - _SUFFIX - 11].strip('-')}-{sha256[:10]}"


def bundle_path(identity: str) -> str:
    """Returns where in the store lies what was sent."""
    return f"{SUBMISSIONS}/{identity}/sent.tar.gz"


def outcome_path(identity: str, submission: str, segment: str, attempt: int) -> str:
    """Returns where in the store one try of a segment, of one driver's Job, leaves how it ended."""
    return f"{SUBMISSIONS}/{identity}/{submission}/{segment}-{attempt}.json"


def ray_job(
    identity: str, segment: Segment, attempt: int, *, installation: Installation, owner: Mapping[str, Any], sha256: str
) -> dict[str, Any]:
    """Returns the RayJob of a segment, owned by the driver's Job."""
    pool, settings = installation.pools[segment.pool], installation.settings
    cluster = copy.deepcopy(dict(pool["rayClusterSpec"]))
    labels = {LABEL: identity, "espalier.dev/segment": segment.name.strip("-")}
    groups = cluster.get("workerGroupSpecs") or ()
    for group in groups:
        group.update(dict.fromkeys(("replicas", "minReplicas", "maxReplicas"), segment.workers))
    for group in (cluster["headGroupSpec"], *groups):
        group["template"].setdefault("metadata", {}).setdefault("labels", {}).update(labels)
    command = ["python", "-m", "espalier_pipeline.cluster.segment", identity, sha256, str(owner["uid"]), segment.name]
    command.append(str(attempt))
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": job_name(identity, segment, attempt),
            "labels": {**settings.get("labels", {}), **labels},
            "ownerReferences": [dict(owner)],
        },
        "spec": {
            "submissionMode": "HTTPMode",
            "entrypoint": shlex.join([*command, *segment.arguments]),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": settings["ttlSecondsAfterFinished"],
            "backoffLimit": 0,
            "preRunningDeadlineSeconds": settings["preRunningDeadlineSeconds"],
            "activeDeadlineSeconds": settings["activeDeadlineSeconds"],
            "rayClusterSpec": cluster,
        },
    }


def _most(installation: Installation, pool: str) -> int:
    """Returns how many workers a pool has beside its head."""
    groups = installation.pools[pool]["rayClusterSpec"].get("workerGroupSpecs") or ()
    return sum(int(group["maxReplicas"]) for group in groups)


def _training(spec: Spec, name: str, pool: str, installation: Installation) -> Segment:
    where, most = spec.candidates[name].where, _most(installation, pool)
    gpus = int(installation.pools[pool].get("gpus", 0))
    at_once = int(gpus // where.gpus_per_worker) if where.gpus_per_worker else 1  # workers that one pod has room for
    if not at_once:
        raise SpecError(
            f"candidate {name} wants {where.gpus_per_worker:g} GPUs per worker, and a pod of pool {pool} has {gpus}",
            code="pool_too_small",
            field=f"candidates.{name}.where.gpus_per_worker",
            given=where.gpus_per_worker,
            remedy="ask for fewer, or name a pool with larger pods: where.pool",
        )
    workers = math.ceil(where.workers / at_once) if most else 0  # without workers the head computes
    if workers > most:
        raise SpecError(
            f"candidate {name} needs {workers} pods of pool {pool}, which has {most}",
            code="pool_too_small",
            field=f"candidates.{name}.where.workers",
            given=where.workers,
            remedy=f"ask for fewer workers, or raise pools.{pool}.workers in the chart's values",
        )
    return Segment(f"c-{name}", pool, ("--only", "train", "--candidate", name), workers)
