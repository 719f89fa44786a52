"""Memory that ran out: what was asked for, what was there, and which setting makes the training fit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from espalier_runtime.plugins import Plugins
from espalier_sdk import Choice, TrainingFailed

from espalier_training.job import TrainJob
from espalier_training.memory import free_bytes

CODE = "out_of_memory"
_ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+ ?\w+)")


@contextmanager
def told_shortage(job: TrainJob) -> Iterator[None]:
    """Turns torch's error for memory that it did not get into a TrainingFailed that says what to change."""
    try:
        yield
    except RuntimeError as error:
        if not _is_shortage(error):
            raise
        asked = _ASKED.search(str(error))
        raise TrainingFailed(
            f"out of memory: a pass over {job.micro_batch_size} examples of up to {job.training['max_tokens']} tokens "
            f"asked for {_readable(asked[1]) if asked else 'more'}, with {free_bytes() / 2**30:.1f} GiB free",
            code=CODE,
            field=f"candidates.{job.candidate}.where",
            remedy=remedy(job),
        ) from error


def remedy(job: TrainJob) -> str:
    """Returns the settings that need less memory, the one that costs least first; none of the first three changes what
    is learned."""
    ways = []
    if job.micro_batch_size > 1:
        ways.append(f"where.micro_batch_size: {job.micro_batch_size // 2} (same batch, in more passes)")
    if not job.gradient_checkpointing and _may_checkpoint(job):
        ways.append("where.gradient_checkpointing: true (a third slower)")
    if job.offload == "none":
        ways.append("where.zero_stage: 2 with offload: optimizer")
    ways.append(f"training.max_tokens below {job.training['max_tokens']}")
    return "; or ".join(ways)


def _may_checkpoint(job: TrainJob) -> bool:
    method = Plugins().load("espalier.peft_methods", Choice(**job.peft)) if job.peft else None
    return not method or bool(method.traits().gradient_checkpointing)


def _is_shortage(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _readable(amount: str) -> str:
    count, unit = re.fullmatch(r"([\d.]+) ?(\w+)", amount).groups()  # type: ignore[union-attr]
    return f"{float(count) / 2**30:.1f} GiB" if unit == "bytes" else f"{count} {unit}"
