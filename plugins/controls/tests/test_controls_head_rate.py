"""The head's own rate: its scale alone, beside other controls."""

from __future__ import annotations

from espalier_controls import HeadRate, LayerwiseLrDecay
from espalier_sdk.testing import check_control
from espalier_sdk.testing.control import BLOCKS, PARAMETERS


def test_head_rate_passes_its_kit() -> None:
    check_control("head-rate", refused=[{"scale": 0}, {"scale": -1}, {"scale": float("inf")}])
    check_control("head-rate", config={"scale": 0.5}, refused=[{"scale": "fast"}])


def test_the_head_alone_is_scaled() -> None:
    control = HeadRate(HeadRate.Config(scale=4))
    scales = {one.role: control.rule(one, blocks=BLOCKS, step=0, steps=1).lr_scale for one in PARAMETERS}
    assert scales.pop("head") == 4.0
    assert set(scales.values()) == {1.0}
    assert not control.boundaries(PARAMETERS, steps=7)


def test_the_head_of_a_decayed_model_is_as_far_above_its_blocks_as_both_say() -> None:
    controls = HeadRate(HeadRate.Config(scale=4)), LayerwiseLrDecay(LayerwiseLrDecay.Config(decay=0.5))
    scales = {}
    for one in PARAMETERS:
        faster, slower = (control.rule(one, blocks=BLOCKS, step=0, steps=1).lr_scale for control in controls)
        scales[one.depth] = faster * slower
    assert (scales[BLOCKS + 1], scales[BLOCKS]) == (4.0, 0.5)
