"""The pure part of training: `plan` says what is trained when, `compose` lists what does not go together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from espalier_sdk.model import Phase, Rule

if TYPE_CHECKING:
    from espalier_sdk.model import Head, ParameterInfo, Placement, Quantise
    from espalier_sdk.protocols import Learner, ModelStrategy, PeftMethod, TrainingControl


_WRAPPINGS = re.compile(r"\.(?:default|base_layer)(?=\.|$)|\.modules_to_save(?=\.)")


def clean_name(name: str) -> str:
    """Returns a parameter's name as blueprints and plans spell it, without what DDP and PEFT put around modules."""
    return _WRAPPINGS.sub("", name.removeprefix("module.").removeprefix("base_model.model."))


def plan(
    parameters: Sequence[ParameterInfo],
    *,
    strategy: ModelStrategy,
    controls: Sequence[TrainingControl],
    blocks: int,
    steps: int,
) -> tuple[Phase, ...]:
    """Returns the phases of training, in order, that cover steps 0 to `steps` without a gap.

    Where several controls speak about a parameter, it is trained only if all (and the strategy) say so, its
    rate scales are multiplied, and its anchors are added. Neighbouring phases with equal rules are one.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: must be at least 1")
    cuts = {0, steps}
    for control in controls:
        cuts.update(cut for cut in control.boundaries(parameters, steps=steps) if 0 < cut < steps)
    phases: list[Phase] = []
    for start, stop in pairwise(sorted(cuts)):
        rules = {
            parameter.name: _merge(parameter, strategy, controls, blocks=blocks, step=start, steps=steps)
            for parameter in parameters
        }
        if phases and phases[-1].rules == rules:
            phases[-1] = Phase(phases[-1].start, stop, rules)
        else:
            phases.append(Phase(start, stop, rules))
    return tuple(phases)


def _merge(
    parameter: ParameterInfo,
    strategy: ModelStrategy,
    controls: Sequence[TrainingControl],
    *,
    blocks: int,
    step: int,
    steps: int,
) -> Rule:
    trainable, lr_scale, anchor = strategy.trainable(parameter), 1.0, 0.0
    for control in controls:
        rule = control.rule(parameter, blocks=blocks, step=step, steps=steps)
        trainable = trainable and rule.trainable
        lr_scale *= rule.lr_scale
        anchor += rule.anchor
    return Rule(trainable=trainable, lr_scale=lr_scale, anchor=anchor)


def built_head(learner: Learner, head: Head) -> Head:
    """Returns the head of the model that a learner trains for a task's head: its own where it names one, else this."""
    own: Head | None = getattr(learner, "head", None)
    return own or head


def quantisation(strategy: ModelStrategy) -> Quantise:
    """Returns how a strategy keeps the linear layers of its base: as it says, else whole."""
    kept: Quantise = getattr(strategy, "quantise", "none")
    return kept


def compose(
    *,
    strategy: ModelStrategy,
    peft: PeftMethod | None,
    learner: Learner,
    head: Head,
    controls: Sequence[TrainingControl],
    placement: Placement,
    has_base: bool,
) -> tuple[str, ...]:
    """Returns every conflict between the choices of one candidate, each a sentence with its remedy.

    `head` is the task's. Pure: reads traits only, so it can run before a worker or a pod starts.
    """
    problems: list[str] = []
    kind = built_head(learner, head).kind
    problems += _presence("base", given=has_base, wanted=strategy.base)
    problems += _presence("peft", given=peft is not None, wanted=strategy.peft)
    built = getattr(strategy, "heads", None)  # what starts from a base has the base's heads, and says none here
    if built is not None and kind not in built:
        needs = "the task" if kind == head.kind else "the learner"
        problems.append(
            f"the strategy builds a model for {_any_of(built)}, {needs} needs {kind}: "
            "choose another `family` in the strategy's config"
        )
    if head.kind not in learner.heads:
        problems.append(
            f"the learner trains {_any_of(learner.heads)}, the task needs {head.kind}: choose another learner"
        )
    if learner.needs_reference and not has_base:
        problems.append("the learner compares with the model that it starts from: add `base:`")
    if placement.zero_stage and (keeps_start(learner, peft) or learner.auxiliaries):
        problems.append(
            f"the learner needs other whole models beside its own, which where.zero_stage {placement.zero_stage} would "
            "shard: choose stage 0"
        )
    for index, control in enumerate(controls):
        if placement.zero_stage not in control.zero_stages:
            problems.append(
                f"controls[{index}] runs at ZeRO stage {_any_of(control.zero_stages)}, "
                f"where.zero_stage is {placement.zero_stage}"
            )
    if peft is not None:
        problems += _method_conflicts(peft, learner, head, placement)
    elif placement.quantise != "none":
        problems.append(
            f"a {placement.quantise} base cannot be trained whole: use the strategy peft, or quantise: none"
        )
    return tuple(problems)


def keeps_start(learner: Learner, peft: PeftMethod | None) -> bool:
    """Tells whether a copy of the start is kept: the learner compares with it, and no adapter can be put off."""
    return learner.needs_reference and not (peft and peft.traits().reference == "disable")


def _method_conflicts(peft: PeftMethod, learner: Learner, head: Head, placement: Placement) -> list[str]:
    problems: list[str] = []
    kind = built_head(learner, head).kind
    traits = peft.traits()
    if kind not in traits.heads:
        needs = "the task" if kind == head.kind else "the learner"
        problems.append(f"the PEFT method supports {_any_of(traits.heads)}, {needs} needs {kind}")
    if placement.zero_stage not in traits.zero_stages:
        problems.append(
            f"the PEFT method runs at ZeRO stage {_any_of(traits.zero_stages)}, "
            f"where.zero_stage is {placement.zero_stage}"
        )
    if traits.virtual_tokens and getattr(learner, "packs", False):
        problems.append(
            "the learner packs several texts into a row, and the PEFT method's virtual tokens stand in front of a "
            "row: remove `learner:`, whose default packs none, or choose a method without virtual tokens"
        )
    if placement.gradient_checkpointing and not traits.gradient_checkpointing:
        problems.append("the PEFT method does not train with where.gradient_checkpointing: remove it")
    if placement.quantise != "none" and not traits.quantised:
        problems.append(
            f"the PEFT method, with these options, does not train beside a {placement.quantise} base: choose "
            "another, or quantise: none"
        )
    if placement.quantise != "none" and placement.zero_stage:
        problems.append(f"a {placement.quantise} base is not sharded: use where.zero_stage 0, or quantise: none")
    return problems


def _presence(field: str, *, given: bool, wanted: str) -> list[str]:
    if wanted == "required" and not given:
        return [f"the strategy needs {field}: add `{field}:`"]
    if wanted == "forbidden" and given:
        return [f"the strategy takes no {field}: remove `{field}:`"]
    return []


def _any_of(values: frozenset[str] | frozenset[int]) -> str:
    return " or ".join(str(value) for value in sorted(values, key=str)) or "nothing"
