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
    elsewhere = [name for name in candidate_order(spec) if placed[name] != CPU_POOL]
    if not elsewhere:
        return [[Segment("all", CPU_POOL)]]
    level: dict[str, int] = {}
    for name in candidate_order(spec):
        level[name] = 1 + max((level[one] for one in spec.candidates[name].references().values()), default=0)
    found = [[Segment("data", CPU_POOL, ("--only", "preprocess"))]]
    for depth in sorted({level[name] for name in elsewhere}):
        wave = [name for name in elsewhere if level[name] == depth]
        found.append([_training(spec, name, placed[name], installation) for name in wave])
    return [*found, [Segment("rest", CPU_POOL)]]


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
    suffix = segment.name if len(segment.name) <= _SUFFIX - 3 else hashlib.sha256(segment.name.encode()).hexdigest()[:8]
    return f"{identity}-{suffix}" + (f"-r{attempt}" if attempt else "")


def identity_of(name: str, sha256: str) -> str:
    """Returns the name of a submission, and of its driver's Job: from the spec's name and what was sent."""
    return f"{name[: _JOB_NAME - _SUFFIX - 11].strip('-')}-{sha256[:10]}"


def bundle_path(identity: str) -> str:
    """Returns where in the store lies what was sent."""
    return f"{SUBMISSIONS}/{identity}/sent.tar.gz"


def outcome_path(identity: str, submission: str, segment: str) -> str:
    """Returns where in the store a segment of one driver's Job leaves how it ended."""
    return f"{SUBMISSIONS}/{identity}/{submission}/{segment}.json"


def ray_job(
    identity: str, segment: Segment, attempt: int, *, installation: Installation, owner: Mapping[str, Any], sha256: str
) -> dict[str, Any]:
    """Returns the RayJob of a segment, owned by the driver's Job."""
    pool, settings = installation.pools[segment.pool], installation.settings
    cluster = copy.deepcopy(dict(pool["rayClusterSpec"]))
    labels = {**settings.get("labels", {}), LABEL: identity, "espalier.dev/segment": segment.name}
    groups = cluster.get("workerGroupSpecs") or ()
    for group in groups:
        group.update(dict.fromkeys(("replicas", "minReplicas", "maxReplicas"), segment.workers))
    for group in (cluster["headGroupSpec"], *groups):
        group["template"].setdefault("metadata", {}).setdefault("labels", {}).update(labels)
    command = ["python", "-m", "espalier_pipeline.cluster.segment", identity, sha256, str(owner["uid"]), segment.name]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": job_name(identity, segment, attempt),
            "labels": labels,
            "ownerReferences": [dict(owner)],
        },
        "spec": {
            "submissionMode": "HTTPMode",
            "entrypoint": shlex.join([*command, *segment.arguments]),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": settings.get("ttlSecondsAfterFinished", 600),
            "backoffLimit": 0,
            "preRunningDeadlineSeconds": settings["preRunningDeadlineSeconds"],
            **({"activeDeadlineSeconds": limit} if (limit := settings.get("activeDeadlineSeconds")) else {}),
            "rayClusterSpec": cluster,
        },
    }


def _training(spec: Spec, name: str, pool: str, installation: Installation) -> Segment:
    where, settings = spec.candidates[name].where, installation.pools[pool]
    per_pod = settings.get("gpus", 0) or 1
    workers = math.ceil(where.workers * (where.gpus_per_worker or 1) / per_pod)
    most = sum(group["maxReplicas"] for group in settings["rayClusterSpec"].get("workerGroupSpecs") or ())
    if workers > most:
        raise SpecError(
            f"candidate {name} needs {workers} pods of pool {pool}, which has {most}",
            code="pool_too_small",
            field=f"candidates.{name}.where.workers",
            given=where.workers,
            remedy=f"ask for fewer workers, or raise pools.{pool}.workers in the chart's values",
        )
    return Segment(f"c-{name}", pool, ("--only", "train", "--candidate", name), workers)
