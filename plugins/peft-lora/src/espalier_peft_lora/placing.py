"""Ranks placed where the loss is sensitive to the weights, under the budget of equal ranks.

Sensitivity is the sum over a layer's weights of |weight x gradient|, to first order the change of the loss were they
zero: SNIP's measure (Lee et al. 2019), which AdaLoRA (Zhang et al. 2023) applies to its updates while they are trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from espalier_sdk import DataError, ParameterInfo, SpecError, clean_name

if TYPE_CHECKING:
    import torch


def place(
    model: torch.nn.Module,
    targets: Sequence[ParameterInfo],
    *,
    rank: int,
    calibration: Iterable[Mapping[str, torch.Tensor]],
) -> dict[str, int]:
    """Returns the rank of each target by its name, 0 where it gets no update.

    Their updates have together no more weights than updates of equal `rank`. A model without weights gets equal ranks.
    Raises SpecError without calibration batches, DataError where those give no gradient.
    """
    if all(weight.is_meta for weight in model.parameters()):
        return {target.name: rank for target in targets}
    weights = sensitivity(model, targets, calibration)
    if not all(map(math.isfinite, weights)) or not any(weights):
        raise DataError(
            "the calibration batches give no gradient to place ranks by",
            field="peft.config.placement",
            remedy="use placement: uniform",
        )
    costs = [sum(target.shape) for target in targets]
    limits = [min(target.shape) for target in targets]
    found = allocate(weights, costs=costs, limits=limits, budget=rank * sum(costs))
    return {target.name: one for target, one in zip(targets, found, strict=True)}


def sensitivity(
    model: torch.nn.Module, targets: Sequence[ParameterInfo], calibration: Iterable[Mapping[str, torch.Tensor]]
) -> list[float]:
    """Returns the sum of |weight x gradient| of each target; the gradient is the mean over batches, without dropout."""
    import torch

    named = dict(model.named_parameters())
    weights = [named[target.name] for target in targets]
    before = {name: parameter.requires_grad for name, parameter in named.items()}
    training = model.training
    model.eval().requires_grad_(False)
    for weight in weights:
        weight.requires_grad_(True)
    sums: Sequence[torch.Tensor] = [torch.zeros_like(weight) for weight in weights]
    count = 0
    for batch in calibration:
        gradients = torch.autograd.grad(model(**batch).loss, weights)
        sums = [total + gradient for total, gradient in zip(sums, gradients, strict=True)]
        count += 1
    for name, parameter in named.items():
        parameter.requires_grad_(before[name])
    model.train(training)
    if not count:
        raise SpecError("placement: relevance needs calibration batches, and none came", field="peft.config.placement")
    return [
        float((weight.detach() * total / count).double().abs().sum())
        for weight, total in zip(weights, sums, strict=True)
    ]


def allocate(weights: Sequence[float], *, costs: Sequence[int], limits: Sequence[int], budget: int) -> list[int]:
    """Returns ranks whose costs are as `weights`, up to their limits, and sum to the budget or little less.

    Whole ranks by largest remainder: what rounding down leaves goes, rank by rank, to those that lost most by it.
    """
    exact = _shares(weights, costs=costs, limits=limits, budget=budget)
    ranks = [math.floor(one) for one in exact]
    left = budget - sum(cost * rank for cost, rank in zip(costs, ranks, strict=True))
    order = sorted(range(len(ranks)), key=lambda at: (ranks[at] - exact[at], at))
    while given := [at for at in order if costs[at] <= left and ranks[at] < limits[at] and weights[at]]:
        for at in given:
            if costs[at] <= left:
                ranks[at], left = ranks[at] + 1, left - costs[at]
    return ranks


def ranks_in(model: torch.nn.Module) -> dict[str, int]:
    """Returns the rank of each layer that has an update, by the name of its weight."""
    from peft.tuners.lora import LoraLayer

    modules: Iterable[tuple[str, Any]] = model.named_modules()
    return {
        f"{clean_name(name)}.weight": module.r["default"] for name, module in modules if isinstance(module, LoraLayer)
    }


def _shares(weights: Sequence[float], *, costs: Sequence[int], limits: Sequence[int], budget: int) -> list[float]:
    """Returns ranks in parts: what is above a limit goes to the others, by their weights."""
    exact, left = [0.0] * len(weights), float(budget)
    free = {at for at, weight in enumerate(weights) if weight}
    while free:
        total = math.fsum(weights[at] for at in free)
        asked = {at: left * weights[at] / total / costs[at] for at in free}
        full = [at for at in free if asked[at] >= limits[at]]
        if not full:
            for at in free:
                exact[at] = asked[at]
            break
        for at in full:
            exact[at], left = float(limits[at]), left - limits[at] * costs[at]
            free.remove(at)
    return exact
