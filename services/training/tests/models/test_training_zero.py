"""DeepSpeed's configuration from a candidate's where, and what is refused about it; what it trains is shown on Ray."""

from __future__ import annotations

from dataclasses import replace

import pytest
from espalier_sdk import Phase, Rule, SpecError
from espalier_training import zero

from .test_training_rules import JOB

ZERO = replace(JOB, zero_stage=2, training={**JOB.training, "early_stopping": None})


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero, "find_spec", lambda name: object())


def test_without_a_stage_there_is_no_deepspeed() -> None:
    assert zero.zero_config(JOB) is None
    zero.require_zero(JOB)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"zero_stage": 0, "offload": "optimizer"}, "where.offload optimizer needs zero_stage 1 or more"),
        ({"zero_stage": 2, "offload": "all"}, "where.offload all needs zero_stage 3"),
    ],
)
def test_what_a_stage_cannot_do_is_refused(installed: None, changes: dict, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        zero.require_zero(replace(ZERO, **changes))


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("offload", ["none", "optimizer"])
def test_what_a_stage_can_do_is_accepted(installed: None, stage: int, offload: str) -> None:
    zero.require_zero(replace(ZERO, zero_stage=stage, offload=offload))


def test_a_worker_without_deepspeed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match="zero_stage 2 needs DeepSpeed") as refused:
        zero.require_zero(ZERO)
    assert "espalier-training[deepspeed]" in str(refused.value.problems[0].remedy)
    assert refused.value.problems[0].field == "candidates.one.where.zero_stage"


def test_rules_that_only_thaw_are_accepted_under_zero_and_those_that_freeze_again_are_refused() -> None:
    trained, frozen = Rule(), Rule(trainable=False)
    thaws = (Phase(0, 3, {"head": trained, "body": frozen}), Phase(3, 6, {"head": trained, "body": trained}))
    zero.require_thawing(ZERO, thaws)
    zero.require_thawing(JOB, thaws[::-1])
    with pytest.raises(SpecError, match="the phase from step 0 freezes body, which was trained before"):
        zero.require_thawing(ZERO, thaws[::-1])


def test_the_configuration_leaves_to_transformers_what_plain_training_has_too() -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: make setup-deepspeed")
    found = zero.zero_config(replace(ZERO, zero_stage=3, offload="all"))
    assert found is not None
    assert found["zero_optimization"]["stage"] == 3
    assert found["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert found["zero_optimization"]["offload_param"]["device"] == "cpu"
    assert found["gradient_clipping"] == found["train_batch_size"] == "auto"
    assert "optimizer" not in found


@pytest.mark.parametrize(("stage", "before"), [(2, (3, 2)), (2, (2, 0)), (0, (2, 2))])
def test_shards_are_not_taken_over_by_another_world(stage: int, before: tuple[int, int]) -> None:
    job = replace(ZERO, zero_stage=stage, workers=2)
    with pytest.raises(SpecError, match="DeepSpeed cannot divide it otherwise") as refused:
        zero.require_same_world(job, dict(zip(("workers", "zero_stage"), before, strict=True)))
    assert refused.value.problems[0].accepted == f"workers: {before[0]}, zero_stage: {before[1]}"


def test_a_whole_checkpoint_is_anyones_and_shards_are_their_own_worlds() -> None:
    zero.require_same_world(replace(JOB, workers=3), {"workers": 2, "zero_stage": 0})
    zero.require_same_world(replace(ZERO, workers=2), {"workers": 2, "zero_stage": 2})
