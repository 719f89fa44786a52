"""L2-SP: which weights are drawn back, and two controls in one plan."""

from __future__ import annotations

from espalier_controls import GradualUnfreezing, L2Sp, LayerwiseLrDecay
from espalier_sdk import ParameterInfo, plan
from espalier_sdk.testing import check_control
from espalier_sdk.testing.control import BLOCKS, PARAMETERS


class Everything:
    """A strategy that trains every parameter."""

    def trainable(self, parameter: ParameterInfo) -> bool:
        return True


def anchored(**config: object) -> set[str]:
    control = L2Sp(L2Sp.Config.model_validate({"strength": 0.1, **config}))
    rules = {one.name: control.rule(one, blocks=BLOCKS, step=0, steps=1) for one in PARAMETERS}
    assert {rule.anchor for rule in rules.values()} <= {0.0, 0.1}
    return {name for name, rule in rules.items() if rule.anchor}


def test_l2_sp_passes_its_kit() -> None:
    refused = [
        {"strength": 0},
        {"strength": float("inf")},
        {"roles": []},
        {"roles": ["head"]},
        {"roles": ["adapter"]},
        {"lowest_depth": 2, "highest_depth": 1},
    ]
    check_control("l2-sp", refused=refused)
    assert L2Sp.zero_stages == {0, 1, 2}


def test_everything_is_drawn_back_but_what_is_new() -> None:
    assert anchored() == {one.name for one in PARAMETERS if one.role not in ("head", "adapter")}


def test_side_columns_are_new_too() -> None:
    side = ParameterInfo("side.weight", (4, 2), BLOCKS + 1, "side")
    assert L2Sp(L2Sp.Config()).rule(side, blocks=BLOCKS, step=0, steps=1).anchor == 0


def test_a_subset_is_chosen_by_role_and_depth() -> None:
    assert anchored(roles=["norm"], lowest_depth=2, highest_depth=3) == {"layer.1.norm.weight", "layer.2.norm.weight"}
    assert anchored(highest_depth=0) == {"embeddings.weight"}


def test_three_controls_in_one_plan_intersect_multiply_and_add() -> None:
    controls = [
        GradualUnfreezing(GradualUnfreezing.Config(share=0.25, blocks_per_stage=2)),
        LayerwiseLrDecay(LayerwiseLrDecay.Config(decay=0.5)),
        L2Sp(L2Sp.Config(strength=0.1)),
        L2Sp(L2Sp.Config(strength=0.2, highest_depth=1)),
    ]
    phases = plan(PARAMETERS, strategy=Everything(), controls=controls, blocks=BLOCKS, steps=20)  # type: ignore[arg-type]
    assert [(one.start, one.stop) for one in phases] == [(0, 5), (5, 10), (10, 15), (15, 20)]
    trained = [{name for name, rule in one.rules.items() if rule.trainable} for one in phases]
    assert trained[0] == {"classifier.weight"}
    assert trained[1] - trained[0] == {
        f"layer.{block}.{part}.weight" for block in (2, 3) for part in ("attention", "norm")
    }
    assert "layer.0.lora_A.weight" in trained[2] and "embeddings.weight" not in trained[2]
    assert trained[3] == {one.name for one in PARAMETERS}
    last = phases[-1].rules
    assert last["layer.0.norm.weight"].lr_scale == 0.5**4
    assert last["layer.0.norm.weight"].anchor == 0.1 + 0.2
    assert last["layer.3.norm.weight"].anchor == 0.1
    assert last["classifier.weight"].anchor == 0


def test_two_controls_without_phases_of_their_own_make_one() -> None:
    controls = [LayerwiseLrDecay(LayerwiseLrDecay.Config(decay=0.5)), L2Sp(L2Sp.Config())]
    phases = plan(PARAMETERS, strategy=Everything(), controls=controls, blocks=BLOCKS, steps=20)  # type: ignore[arg-type]
    assert len(phases) == 1
