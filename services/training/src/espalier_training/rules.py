"""What a phase's rules do to a model: which parameters learn, at which rate and decay, and how far from their start."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from espalier_sdk import Phase, Rule, TrainingFailed, clean_name

if TYPE_CHECKING:
    import torch

TRACED_WEIGHTS = 100_000_000  # how far weights moved is told up to here: it needs a copy of each


def apply_rules(model: torch.nn.Module, rules: Mapping[str, Rule]) -> None:
    """Sets `requires_grad` by the plan; what the plan does not name (PEFT's untouched copies) stays frozen."""
    named: set[str] = set()
    for name, parameter in model.named_parameters():
        clean = clean_name(name)
        rule = None if ".original_module." in f".{clean}." else rules.get(clean)
        parameter.requires_grad_(rule is not None and rule.trainable)
        if rule is not None:
            named.add(clean)
    missing = sorted(name for name, rule in rules.items() if rule.trainable and name not in named)
    if missing:
        raise TrainingFailed(
            f"the plan trains parameters that the model does not have: {', '.join(missing[:5])}",
            remedy="the strategy's or PEFT method's `parameters` and what it builds must agree: run its kit",
        )


def parameter_groups(
    model: torch.nn.Module, rules: Mapping[str, Rule], *, learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Returns AdamW's groups: one per rate scale, with and without decay.

    Decay is for matrices: biases, norms and factors, such as (IA)3's, which start at 1, are vectors.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        clean = clean_name(name)
        scale = rules[clean].lr_scale
        decay = weight_decay if _is_matrix(parameter) else 0.0
        group = groups.setdefault(
            (scale, decay), {"params": [], "lr": learning_rate * scale, "weight_decay": decay, "names": []}
        )
        group["params"].append(parameter)
        group["names"].append(clean)
    return list(groups.values())


def _is_matrix(parameter: torch.nn.Parameter) -> bool:
    return sum(size > 1 for size in parameter.shape) > 1


class Anchors:
    """Holds weights near those that training started from: adds `strength / 2 * |w - w0|^2` (L2-SP, Li et al. 2018)."""

    def __init__(self, model: torch.nn.Module, phases: Sequence[Phase]) -> None:
        """Keeps a copy of every weight that some phase anchors; call it before a checkpoint is loaded."""
        anchored = {name for phase in phases for name, rule in phase.rules.items() if rule.anchor > 0}
        self._start = {
            clean: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if (clean := clean_name(name)) in anchored
        }

    def penalty(self, model: torch.nn.Module, rules: Mapping[str, Rule]) -> torch.Tensor | None:
        """Returns the penalty of a phase; None where it anchors nothing that it trains."""
        total: torch.Tensor | None = None
        for name, parameter in model.named_parameters():
            start = self._start.get(clean := clean_name(name))
            if start is None or not parameter.requires_grad or rules[clean].anchor <= 0:
                continue
            term = 0.5 * rules[clean].anchor * (parameter - start.to(parameter.device)).square().sum()
            total = term if total is None else total + term
        return total


def start_of(model: torch.nn.Module, trained: Collection[str]) -> dict[str, torch.Tensor]:
    """Returns copies of the weights that training will change, or none where they are too many to keep twice."""
    named = {clean_name(name): one for name, one in model.named_parameters() if clean_name(name) in trained}
    if sum(one.numel() for one in named.values()) > TRACED_WEIGHTS:
        return {}
    return {name: one.detach().clone() for name, one in named.items()}


def distances(model: torch.nn.Module, start: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Returns how far each weight moved, relative to its start's norm (to 1 where that norm is 0)."""
    import torch

    found: dict[str, float] = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if (clean := clean_name(name)) in start:
                before = start[clean].to(parameter.device)
                scale = float(before.norm()) or 1.0
                found[clean] = round(float((parameter - before).norm()) / scale, 6)
    return found
