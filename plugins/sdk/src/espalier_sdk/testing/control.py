"""The kit for training controls: pure rules, constant between the boundaries that they declare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from espalier_sdk.model import ParameterInfo, Rule
from espalier_sdk.planning import plan
from espalier_sdk.testing.plugin import check_plugin

BLOCKS = 4
PARAMETERS = (
    ParameterInfo("embeddings.weight", (8, 4), 0, "embedding"),
    *(
        ParameterInfo(f"layer.{block}.{part}", (4, 4), block + 1, "norm" if part == "norm.weight" else "block")
        for block in range(BLOCKS)
        for part in ("attention.weight", "norm.weight")
    ),
    ParameterInfo("layer.0.lora_A.weight", (2, 4), 1, "adapter"),
    ParameterInfo("classifier.weight", (3, 4), BLOCKS + 1, "head"),
)


def check_control(
    name: str,
    *,
    config: Mapping[str, Any] | None = None,
    refused: Sequence[Mapping[str, Any]],
    steps: Sequence[int] = (1, 7, 100),
) -> None:
    """Checks a training control on a model of four blocks, for several lengths of training.

    Boundaries are whole steps in order; rules are pure, finite and not negative, and constant between boundaries,
    whatever the order in which they are asked for; in each phase something is trained; each config of `refused` is
    refused.
    """
    plugin = check_plugin("espalier.training_controls", name)
    assert plugin.zero_stages and plugin.zero_stages <= {0, 1, 2, 3}, f"{name}: zero_stages is {plugin.zero_stages}"
    checked = plugin.Config.model_validate(dict(config or {}))
    for count in steps:
        _check_length(f"{name} over {count} steps", plugin(checked), plugin(checked), count)
    assert refused, f"{name}: the kit needs configs that must be refused"
    for wrong in refused:
        with pytest.raises(ValidationError):
            plugin.Config.model_validate(dict(wrong))


class _Everything:
    """A strategy that trains every parameter."""

    def trainable(self, parameter: ParameterInfo) -> bool:
        return True


def _check_length(label: str, control: Any, other: Any, steps: int) -> None:
    cuts = list(control.boundaries(PARAMETERS, steps=steps))
    assert cuts == list(other.boundaries(PARAMETERS, steps=steps)), f"{label}: boundaries() is not pure"
    assert all(type(cut) is int for cut in cuts) and cuts == sorted(set(cuts)), f"{label}: boundaries {cuts}"
    rules = [{one.name: _rule(label, control, one, step, steps) for one in PARAMETERS} for step in range(steps)]
    backwards = [
        {one.name: _rule(label, other, one, step, steps) for one in PARAMETERS} for step in reversed(range(steps))
    ]
    assert rules == backwards[::-1], f"{label}: asked in another order, rule() answers otherwise: it keeps a state"
    for step in range(1, steps):
        assert step in cuts or rules[step] == rules[step - 1], f"{label}: rules change at {step}, no boundary says so"
    for phase in plan(PARAMETERS, strategy=_Everything(), controls=[control], blocks=BLOCKS, steps=steps):  # type: ignore[arg-type]
        trained = [one for one, rule in phase.rules.items() if rule.trainable and rule.lr_scale > 0]
        assert trained, f"{label}: between {phase.start} and {phase.stop} nothing is trained"


def _rule(label: str, control: Any, parameter: ParameterInfo, step: int, steps: int) -> Rule:
    rule = control.rule(parameter, blocks=BLOCKS, step=step, steps=steps)
    assert isinstance(rule, Rule), f"{label}: rule() must be a Rule"
    for value in (rule.lr_scale, rule.anchor):
        assert math.isfinite(value) and value >= 0, f"{label}: {parameter.name} at {step}: {rule}"
    return rule
