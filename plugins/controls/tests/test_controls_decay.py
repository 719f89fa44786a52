"""Layer-wise learning rates: the exact scales."""

from __future__ import annotations

import pytest
from espalier_controls import LayerwiseLrDecay
from espalier_sdk.testing import check_control
from espalier_sdk.testing.control import BLOCKS, PARAMETERS


def test_layerwise_lr_decay_passes_its_kit() -> None:
    check_control("layerwise-lr-decay", refused=[{"decay": 0}, {"decay": 1.1}])
    check_control("layerwise-lr-decay", config={"decay": 1}, refused=[{"decay": -1}])


def test_each_depth_below_the_head_is_scaled_once_more() -> None:
    control = LayerwiseLrDecay(LayerwiseLrDecay.Config(decay=0.5))
    scales = {one.depth: control.rule(one, blocks=BLOCKS, step=0, steps=1).lr_scale for one in PARAMETERS}
    assert scales == {5: 1.0, 4: 0.5, 3: 0.25, 2: 0.125, 1: 0.0625, 0: 0.03125}


@pytest.mark.parametrize("step", [0, 6])
def test_the_scales_do_not_depend_on_the_step(step: int) -> None:
    control = LayerwiseLrDecay(LayerwiseLrDecay.Config())
    rule = control.rule(PARAMETERS[0], blocks=BLOCKS, step=step, steps=7)
    assert rule.lr_scale == pytest.approx(0.9**5)
    assert not control.boundaries(PARAMETERS, steps=7)
