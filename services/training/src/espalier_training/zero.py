"""DeepSpeed ZeRO: its configuration from a candidate's *where*, and weights gathered from their shards.

Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models". Knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from espalier_sdk import Phase, SpecError, clean_name

from espalier_training.job import TrainJob

if TYPE_CHECKING:
    import torch


def require_zero(job: TrainJob) -> None:
    """Raises SpecError where this worker has no DeepSpeed, or the candidate asks for what a stage cannot do."""
    at = f"candidates.{job.candidate}"
    if job.offload != "none" and job.zero_stage < (3 if job.offload == "all" else 1):
        raise SpecError(
            f"where.offload {job.offload} needs zero_stage {3 if job.offload == 'all' else '1 or more'}",
            field=f"{at}.where.offload",
            given=job.offload,
            remedy="raise where.zero_stage, or leave offload out",
        )
    if not job.zero_stage:
        return
    if find_spec("deepspeed") is None:
        raise SpecError(
            f"where.zero_stage {job.zero_stage} needs DeepSpeed, which is not installed on the workers",
            field=f"{at}.where.zero_stage",
            given=job.zero_stage,
            remedy="install espalier-training[deepspeed] there (`make setup-deepspeed` in a checkout)",
        )


def require_thawing(job: TrainJob, phases: Sequence[Phase]) -> None:
    """Raises SpecError for rules that freeze again what they trained: its full precision ends with its engine."""
    trained: set[str] = set()
    for phase in phases if job.zero_stage else ():
        trains = {name for name, rule in phase.rules.items() if rule.trainable}
        if frozen := sorted(trained - trains):
            raise SpecError(
                f"the phase from step {phase.start} freezes {frozen[0]}, which was trained before, under ZeRO stage "
                f"{job.zero_stage}",
                field=f"candidates.{job.candidate}.where.zero_stage",
                given=job.zero_stage,
                accepted="0",
                remedy="remove the control that freezes it, or use zero_stage: 0",
            )
        trained |= trains


def require_same_world(job: TrainJob, world: Mapping[str, int]) -> None:
    """Raises SpecError where a checkpoint in shards was written by another number of workers, or at another stage."""
    if world == job.world or not (job.zero_stage or world["zero_stage"]):
        return  # without ZeRO a checkpoint is whole, whoever wrote it
    raise SpecError(
        f"the checkpoint to go on from lies in the shards of {world['workers']} workers at ZeRO stage "
        f"{world['zero_stage']}: DeepSpeed cannot divide it otherwise",
        code="another_world",
        field=f"candidates.{job.candidate}.where",
        given=f"workers: {job.workers}, zero_stage: {job.zero_stage}",
        accepted=f"workers: {world['workers']}, zero_stage: {world['zero_stage']}",
        remedy=f"train on as before, or remove {job.checkpoints} to begin again",
    )


def zero_config(job: TrainJob) -> dict[str, Any] | None:
    """Returns DeepSpeed's configuration, whose `auto` values transformers fills from its own arguments; None without.

    Call it before the trainer's arguments are made: on a host without GPU it also keeps DeepSpeed from compiling its
    shared-memory collectives, which need a compiler and bring nothing to gloo.
    """
    if not job.zero_stage:
        return None
    import deepspeed.ops
    import torch

    gpu = torch.cuda.is_available()
    if not gpu:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    zero: dict[str, Any] = {"stage": job.zero_stage}
    if job.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": gpu}
    if job.offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": gpu}
    return {
        "zero_optimization": zero,
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "zero_force_ds_cpu_optimizer": False,  # torch has one: nothing to compile
    }


def gathered(model: torch.nn.Module, names: frozenset[str]) -> Mapping[str, torch.Tensor]:
    """Returns copies of some weights from their shards, by clean name; every worker must call it (a collective).

    What is trained comes in float32 from the optimizer, also where the engine computes with bfloat16 copies.
    """
    import deepspeed
    import torch
    from deepspeed.utils import safe_get_full_fp32_param

    found = {}
    for name, parameter in model.named_parameters():
        if (clean := clean_name(name)) not in names or ".original_module." in f".{clean}.":
            continue
        if parameter.requires_grad and parameter.dtype != torch.float32:
            found[clean] = safe_get_full_fp32_param(parameter).detach().cpu().clone()
            continue
        with deepspeed.zero.GatheredParameters([parameter]):
            found[clean] = parameter.detach().cpu().clone()
    return found


def discard(model: torch.nn.Module) -> None:
    """Gives back the memory of a model that was in an engine, wherever it is still named."""
    for parameter in model.parameters():
        parameter.grad = None
        parameter.data = parameter.data.new_empty(0)
        if hasattr(parameter, "ds_tensor"):  # this worker's shard of it, under stage 3
            parameter.ds_tensor = None
