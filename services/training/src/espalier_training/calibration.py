"""What a PEFT method reads of the train split before it is put in, and the parameters that it then has.

Knows no method and no learner by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from espalier_sdk import Blueprint, ParameterInfo, Parts, SpecError
from espalier_sdk.columns import LABELS, STARTS

from espalier_training.examples import Examples
from espalier_training.job import TrainJob

if TYPE_CHECKING:
    import torch
    from espalier_sdk.protocols import Learner, PeftMethod


def calibration_batches(
    job: TrainJob, peft: PeftMethod, learner: Learner, parts: Parts, examples: Examples
) -> list[dict[str, torch.Tensor]]:
    """Returns as many batches as the method asks for, drawn by the training's seed: the same on every worker.

    Raises SpecError where the learner makes no batches whose loss the model itself tells.
    """
    count, size = peft.traits().calibration_batches, job.training["batch_size"]
    if not count:
        return []
    collate: Any = learner.inputs(parts).get("data_collator")
    order = np.random.default_rng(job.training["seed"]).permutation(len(examples))[: count * size]
    starts = range(0, len(order), size)
    batches = (
        [collate([examples[int(at)] for at in order[start : start + size]]) for start in starts] if collate else []
    )
    if not batches or not {LABELS, STARTS} & set(batches[0]):
        raise SpecError(
            f"the PEFT method {(job.peft or {})['name']} calibrates on labels, and the learner {job.learner['name']} "
            "makes no batches that have them",
            field=f"candidates.{job.candidate}.peft",
            remedy="choose another learner, or options of the method that do not calibrate",
        )
    device = next(parts.model.parameters()).device
    return [
        # Some collators add settings of the model's forward pass, such as `use_cache`.
        {name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()}
        for batch in batches
    ]


def injected_parameters(peft: PeftMethod, model: torch.nn.Module, blueprint: Blueprint) -> tuple[ParameterInfo, ...]:
    """Returns what a method added to a model: as declared, or as it placed it by what it read."""
    placed: Any = getattr(peft, "placed", None)
    found: tuple[ParameterInfo, ...] = placed(model, blueprint=blueprint) if placed else peft.parameters(blueprint)
    return found
