"""Gradual unfreezing: when each group thaws."""

from __future__ import annotations

import pytest
from espalier_controls import GradualUnfreezing
from espalier_sdk.testing import check_control
from espalier_sdk.testing.control import BLOCKS, PARAMETERS

HEAD, EMBEDDING = "classifier.weight", "embeddings.weight"


def trained(step: int, *, steps: int = 100, **config: object) -> set[int]:
    """Returns the depths that are trained at a step."""
    control = GradualUnfreezing(GradualUnfreezing.Config.model_validate(config))
    return {one.depth for one in PARAMETERS if control.rule(one, blocks=BLOCKS, step=step, steps=steps).trainable}


@pytest.mark.parametrize(
    "config", [{}, {"share": 0.4}, {"blocks_per_stage": 3}, {"head_alone": False, "embeddings": False}]
)
def test_gradual_unfreezing_passes_its_kit(config: dict) -> None:
    refused = [{"share": 0}, {"share": 1}, {"blocks_per_stage": 0}]
    check_control("gradual-unfreezing", config=config, refused=refused)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, {5}),
        (9, {5}),
        (10, {4, 5}),
        (20, {3, 4, 5}),
        (39, {2, 3, 4, 5}),
        (40, {1, 2, 3, 4, 5}),
        (49, {1, 2, 3, 4, 5}),
        (50, {0, 1, 2, 3, 4, 5}),
        (99, {0, 1, 2, 3, 4, 5}),
    ],
)
def test_a_block_thaws_after_each_tenth_of_the_steps_and_the_embeddings_last(step: int, expected: set[int]) -> None:
    assert trained(step) == expected


def test_blocks_thaw_in_groups_and_an_uneven_one_does_not_take_the_embeddings_with_it() -> None:
    assert trained(10, blocks_per_stage=3) == {2, 3, 4, 5}
    assert trained(20, blocks_per_stage=3) == {1, 2, 3, 4, 5}
    assert trained(30, blocks_per_stage=3) == {0, 1, 2, 3, 4, 5}


def test_without_a_head_of_its_own_the_last_block_begins() -> None:
    assert trained(0, head_alone=False) == {4, 5}
    assert trained(10, head_alone=False) == {3, 4, 5}


def test_embeddings_can_stay_frozen() -> None:
    assert 0 not in trained(99, embeddings=False)


def test_what_has_not_thawed_at_the_end_never_does() -> None:
    assert trained(99, share=0.4) == {3, 4, 5}


def test_the_cuts_are_those_steps() -> None:
    control = GradualUnfreezing(GradualUnfreezing.Config())
    assert list(control.boundaries(PARAMETERS, steps=100)) == [10, 20, 30, 40, 50, 60]
