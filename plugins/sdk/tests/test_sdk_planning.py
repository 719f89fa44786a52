"""`plan` and `compose`: pure, complete, and as their docstrings say."""

from __future__ import annotations

import math
from itertools import pairwise, product
from typing import Any, get_args

import pytest
from espalier_sdk import (
    Head,
    HeadKind,
    ParameterInfo,
    Placement,
    Rule,
    ZeroStage,
    built_head,
    clean_name,
    compose,
    plan,
)
from espalier_sdk.testing.fakes import FakeControl, FakeLearner, FakePeft, FakeStrategy
from hypothesis import given
from hypothesis import strategies as st

PARAMETERS = (
    ParameterInfo("embeddings.weight", (8, 4), 0, "embedding"),
    ParameterInfo("layer.0.weight", (4, 4), 1, "block"),
    ParameterInfo("layer.1.weight", (4, 4), 2, "block"),
    ParameterInfo("classifier.weight", (2, 4), 3, "head"),
)
HEAD = Head("sequence-classification", outputs=2)

rules = st.builds(
    Rule,
    trainable=st.booleans(),
    lr_scale=st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    anchor=st.sampled_from([0.0, 0.125, 0.5]),
)
controls = st.builds(
    FakeControl,
    cuts=st.lists(st.integers(-5, 60), unique=True).map(sorted).map(tuple),
    rules=st.lists(rules, min_size=1, max_size=3).map(tuple),
)
roles = st.sets(st.sampled_from(["embedding", "block", "head"])).map(tuple)


def _plan(strategy: Any, given_controls: Any, steps: int) -> Any:
    return plan(PARAMETERS, strategy=strategy, controls=given_controls, blocks=2, steps=steps)


@given(st.lists(controls, max_size=3), st.integers(1, 50), roles)
def test_phases_cover_all_steps_without_gap_and_neighbours_differ(
    some: list[FakeControl], steps: int, trained: tuple[str, ...]
) -> None:
    phases = _plan(FakeStrategy(roles=trained), some, steps)
    assert phases[0].start == 0
    assert phases[-1].stop == steps
    assert all(phase.start < phase.stop for phase in phases)
    for before, after in pairwise(phases):
        assert before.stop == after.start
        assert before.rules != after.rules


@given(st.lists(controls, max_size=3), st.integers(1, 50), roles)
def test_each_rule_is_and_product_and_sum_at_every_step(
    some: list[FakeControl], steps: int, trained: tuple[str, ...]
) -> None:
    strategy = FakeStrategy(roles=trained)
    for phase in _plan(strategy, some, steps):
        assert set(phase.rules) == {one.name for one in PARAMETERS}
        for one, step in product(PARAMETERS, range(phase.start, phase.stop)):
            said = [control.rule(one, blocks=2, step=step, steps=steps) for control in some]
            rule = phase.rules[one.name]
            assert rule.trainable == (strategy.trainable(one) and all(each.trainable for each in said))
            assert math.isclose(rule.lr_scale, math.prod(each.lr_scale for each in said))
            assert math.isclose(rule.anchor, math.fsum(each.anchor for each in said))


@given(st.lists(controls, max_size=3), st.integers(1, 50))
def test_plan_is_pure_and_does_not_depend_on_the_order_of_controls(some: list[FakeControl], steps: int) -> None:
    assert _plan(FakeStrategy(), some, steps) == _plan(FakeStrategy(), some, steps)
    assert _plan(FakeStrategy(), some[::-1], steps) == _plan(FakeStrategy(), some, steps)


def test_cuts_outside_the_training_and_cuts_that_change_nothing_make_no_phase() -> None:
    assert [(one.start, one.stop) for one in _plan(FakeStrategy(), [FakeControl(cuts=(-3, 0, 5, 10, 99))], 10)] == [
        (0, 10)
    ]


@pytest.mark.parametrize("steps", [0, -1])
def test_training_of_no_step_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"steps={steps}: must be at least 1"):
        _plan(FakeStrategy(), [], steps)


def _compose(**changes: Any) -> tuple[str, ...]:
    choices: dict[str, Any] = {
        "strategy": FakeStrategy(),
        "peft": None,
        "learner": FakeLearner(),
        "head": HEAD,
        "controls": [],
        "placement": Placement(),
        "has_base": True,
    }
    return compose(**choices | changes)


CONFLICTS: list[tuple[dict[str, Any], str]] = [
    ({"has_base": False}, "the strategy needs base: add `base:`"),
    ({"learner": FakeLearner(frozenset({"causal-lm"}))}, "the learner trains causal-lm, the task needs sequence-"),
    (
        {"controls": [FakeControl(), FakeControl(zero_stages=frozenset({1, 2}))]},
        "controls[1] runs at ZeRO stage 1 or 2",
    ),
    ({"placement": Placement(quantise="nf4")}, "a nf4 base cannot be trained whole"),
]


def test_choices_that_go_together_have_no_conflict() -> None:
    assert _compose() == ()
    assert _compose(strategy=FakeStrategy(peft="required"), peft=FakePeft()) == ()
    assert _compose(strategy=FakeStrategy(base="forbidden"), has_base=False) == ()


@pytest.mark.parametrize(("changes", "sentence"), CONFLICTS)
def test_each_conflict_is_a_sentence_that_names_it(changes: dict[str, Any], sentence: str) -> None:
    problems = _compose(**changes)
    assert len(problems) == 1
    assert sentence in problems[0]


def test_a_learner_that_compares_needs_a_base_and_a_whole_reference() -> None:
    learner = FakeLearner(needs_reference=True)
    assert _compose(learner=learner) == ()
    [absent] = _compose(learner=learner, strategy=FakeStrategy(base="forbidden"), has_base=False)
    assert "compares with the model that it starts from: add `base:`" in absent
    [sharded] = _compose(learner=learner, placement=Placement(zero_stage=2), controls=[])
    assert "where.zero_stage 2 would shard" in sharded
    asking = FakeLearner(auxiliaries={"reward": "sequence-classification"}, needs_reference=True)
    assert _compose(learner=asking, placement=Placement(zero_stage=2)) == (sharded,)
    adapted: dict[str, Any] = {"strategy": FakeStrategy(peft="required"), "placement": Placement(zero_stage=2)}
    assert _compose(learner=learner, peft=FakePeft(), **adapted) == ()  # its adapter can be put off
    assert _compose(learner=asking, peft=FakePeft(), **adapted) == (sharded,)


def test_a_learner_that_builds_another_head_is_measured_by_that_head() -> None:
    learner = FakeLearner(frozenset({"causal-lm"}), head=Head("sequence-classification", outputs=1))
    task = Head("causal-lm")
    assert _compose(learner=learner, head=task) == ()
    assert built_head(learner, task).outputs == 1
    assert built_head(FakeLearner(), task) is task
    [problem] = _compose(
        learner=learner,
        head=task,
        strategy=FakeStrategy(peft="required"),
        peft=FakePeft(heads=frozenset({"causal-lm"})),
    )
    assert problem == "the PEFT method supports causal-lm, the learner needs sequence-classification"


def test_all_conflicts_come_at_once() -> None:
    together: dict[str, Any] = {}
    for changes, _ in CONFLICTS:
        together |= changes
    problems = _compose(**together)
    assert len(problems) == len(CONFLICTS)
    for _, sentence in CONFLICTS:
        assert any(sentence in problem for problem in problems)


def test_method_that_does_not_go_with_head_or_zero_stage_is_a_conflict() -> None:
    method = FakePeft(zero_stages=frozenset({0}), heads=frozenset({"causal-lm"}))
    strategy = FakeStrategy(peft="required")
    problems = _compose(strategy=strategy, peft=method, placement=Placement(zero_stage=3))
    assert problems == (
        "the PEFT method supports causal-lm, the task needs sequence-classification",
        "the PEFT method runs at ZeRO stage 0, where.zero_stage is 3",
    )


def test_a_method_trains_beside_a_quantised_base_if_it_says_so_and_where_nothing_is_sharded() -> None:
    strategy = FakeStrategy(peft="required")
    quantised = Placement(quantise="nf4")
    assert _compose(strategy=strategy, peft=FakePeft(quantised=True), placement=quantised) == ()
    [cannot] = _compose(strategy=strategy, peft=FakePeft(), placement=quantised)
    assert "with these options, does not train beside a nf4 base" in cannot
    sharded = Placement(quantise="nf4", zero_stage=1)
    [problem] = _compose(strategy=strategy, peft=FakePeft(quantised=True), placement=sharded)
    assert "a nf4 base is not sharded: use where.zero_stage 0" in problem


def test_a_method_without_gradients_where_activations_are_computed_again_is_refused_there_alone() -> None:
    strategy, cannot = FakeStrategy(peft="required"), FakePeft(gradient_checkpointing=False)
    again = Placement(gradient_checkpointing=True)
    assert _compose(strategy=strategy, peft=cannot) == ()
    assert _compose(strategy=strategy, peft=FakePeft(), placement=again) == ()
    [problem] = _compose(strategy=strategy, peft=cannot, placement=again)
    assert problem == "the PEFT method does not train with where.gradient_checkpointing: remove it"


def test_virtual_tokens_in_front_of_a_row_of_several_texts_are_refused() -> None:
    strategy, method, learner = FakeStrategy(peft="required"), FakePeft(virtual_tokens=4), FakeLearner(packs=True)
    assert _compose(strategy=strategy, peft=method) == ()
    assert _compose(strategy=strategy, peft=FakePeft(), learner=learner) == ()
    [problem] = _compose(strategy=strategy, peft=method, learner=learner)
    assert "the learner packs several texts into a row" in problem
    assert "remove `learner:`" in problem


def test_method_beside_a_strategy_that_takes_none_is_a_conflict() -> None:
    assert _compose(peft=FakePeft()) == ("the strategy takes no peft: remove `peft:`",)
    assert _compose(strategy=FakeStrategy(peft="required")) == ("the strategy needs peft: add `peft:`",)


# Whatever the choices, what `compose` says of them is a set of independent conflicts.

_HEADS = st.sampled_from(get_args(HeadKind))
_STAGES = st.frozensets(st.sampled_from(get_args(ZeroStage)))
_WANTED = st.sampled_from(["required", "forbidden"])
_CONTROLS = st.lists(st.builds(FakeControl, zero_stages=_STAGES), max_size=4)
_CHOICES = st.fixed_dictionaries(
    {
        "strategy": st.builds(FakeStrategy, base=_WANTED, peft=_WANTED),
        "peft": st.none()
        | st.builds(FakePeft, zero_stages=_STAGES, heads=st.frozensets(_HEADS), gradient_checkpointing=st.booleans()),
        "learner": st.builds(FakeLearner, heads=st.frozensets(_HEADS), packs=st.booleans()),
        "head": st.builds(Head, kind=_HEADS),
        "controls": _CONTROLS,
        "placement": st.builds(
            Placement,
            zero_stage=st.sampled_from(get_args(ZeroStage)),
            quantise=st.sampled_from(["none", "nf4"]),
            gradient_checkpointing=st.booleans(),
        ),
        "has_base": st.booleans(),
    }
)


@given(_CHOICES)
def test_the_same_choices_have_the_same_conflicts_each_a_sentence_of_its_own(choices: dict[str, Any]) -> None:
    problems = compose(**choices)
    assert problems == compose(**choices)
    assert len(set(problems)) == len(problems)
    assert all(len(problem.split()) > 3 for problem in problems)


@given(_CHOICES, st.data())
def test_controls_conflict_each_for_itself(choices: dict[str, Any], data: st.DataObject) -> None:
    controls = choices["controls"]
    without = len(compose(**choices | {"controls": []}))
    alone = sum(len(compose(**choices | {"controls": [control]})) - without for control in controls)
    assert len(compose(**choices)) == without + alone
    shuffled = data.draw(st.permutations(controls))
    assert len(compose(**choices | {"controls": shuffled})) == without + alone


@given(_CHOICES)
def test_a_plugin_that_can_do_more_has_no_further_conflict(choices: dict[str, Any]) -> None:
    heads, stages = frozenset(get_args(HeadKind)), frozenset(get_args(ZeroStage))
    wider = choices | {"learner": FakeLearner(heads=heads), "controls": [FakeControl() for _ in choices["controls"]]}
    if choices["peft"]:
        wider["peft"] = FakePeft(zero_stages=stages, heads=heads)
    assert set(compose(**wider)) <= set(compose(**choices))


@pytest.mark.parametrize(
    ("wrapped", "clean"),
    [
        ("module.bert.pooler.dense.weight", "bert.pooler.dense.weight"),
        ("base_model.model.layers.0.q_proj.lora_A.default.weight", "layers.0.q_proj.lora_A.weight"),
        ("module.base_model.model.layers.0.q_proj.base_layer.weight", "layers.0.q_proj.weight"),
        ("base_model.model.classifier.modules_to_save.default.bias", "classifier.bias"),
        ("base_model.model.layers.0.q_proj.vera_lambda_b.default", "layers.0.q_proj.vera_lambda_b"),
        ("layers.0.defaults.default_scale", "layers.0.defaults.default_scale"),
    ],
)
def test_names_lose_what_ddp_and_peft_put_around_them(wrapped: str, clean: str) -> None:
    assert clean_name(wrapped) == clean
