"""What the plan says about parameters, on modules of a few weights: trainability, rates, decay, steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from espalier_sdk import Rule, TrainingFailed
from espalier_training.job import TrainJob
from espalier_training.rules import apply_rules, parameter_groups
from espalier_training.train import _steps


class Block(torch.nn.Module):
    """A linear layer between two norms, as BERT and as GPT-2 call theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(3, 3)
        self.LayerNorm = torch.nn.LayerNorm(3)
        self.ln_1 = torch.nn.LayerNorm(3)


class Model(torch.nn.Module):
    """Two blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.ModuleList([Block(), Block()])
        self.classifier = torch.nn.Linear(3, 2)


def rules_of(model: torch.nn.Module, **changes: Rule) -> dict[str, Rule]:
    """Trains everything but what a change, by the beginning of its name, says otherwise."""
    found = {}
    for name, _ in model.named_parameters():
        near = [rule for start, rule in changes.items() if name.startswith(start.replace("__", "."))]
        found[name] = near[0] if near else Rule()
    return found


def groups_by_name(model: torch.nn.Module, rules: dict[str, Rule]) -> dict[str, tuple[float, float]]:
    """Returns rate and decay of every parameter that the optimizer would get."""
    groups = parameter_groups(model, rules, learning_rate=0.1, weight_decay=0.01)
    return {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["names"]}


def test_biases_and_norms_of_any_spelling_have_no_decay_and_all_else_has() -> None:
    model = Model()
    found = groups_by_name(model, rules_of(model))
    decayed = {name for name, (_, decay) in found.items() if decay == 0.01}
    assert decayed == {"layer.0.dense.weight", "layer.1.dense.weight", "classifier.weight"}
    assert {decay for name, (_, decay) in found.items() if name not in decayed} == {0.0}
    assert len(found) == len(list(model.parameters()))


@pytest.mark.parametrize("shape", [(4,), (4, 1), (1, 4)])
def test_factors_that_start_at_one_are_not_pulled_to_zero(shape: tuple[int, ...]) -> None:
    """Such are (IA)3's factors and DoRA's magnitudes: decay would take away what they scale."""
    model = torch.nn.Module()
    model.factor = torch.nn.Parameter(torch.ones(shape))
    assert groups_by_name(model, rules_of(model)) == {"factor": (0.1, 0.0)}


def test_rates_are_scaled_by_the_plan() -> None:
    model = Model()
    found = groups_by_name(model, rules_of(model, layer__0=Rule(lr_scale=0.25), layer__1=Rule(lr_scale=0.5)))
    assert found["layer.0.dense.weight"] == (0.025, 0.01)
    assert found["layer.1.LayerNorm.bias"] == (0.05, 0.0)
    assert found["classifier.weight"] == (0.1, 0.01)


def test_what_the_plan_freezes_has_no_gradient_and_is_in_no_group() -> None:
    model = Model()
    rules = rules_of(model, layer__0=Rule(trainable=False))
    apply_rules(model, rules)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name in rules if not name.startswith("layer.0.")}
    assert set(groups_by_name(model, rules)) == trained


def test_a_step_of_the_optimizer_leaves_frozen_weights_as_they_were() -> None:
    model = Model()
    rules = rules_of(model, layer__0=Rule(trainable=False))
    apply_rules(model, rules)
    groups = parameter_groups(model, rules, learning_rate=0.1, weight_decay=0.5)
    optimizer = torch.optim.AdamW([{key: group[key] for key in ("params", "lr", "weight_decay")} for group in groups])
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    inner = model.layer[1].dense(model.layer[0].LayerNorm(model.layer[0].dense(torch.ones(4, 3))))
    torch.nn.functional.cross_entropy(model.classifier(inner), torch.tensor([0, 1, 0, 1])).backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (
            name.startswith("layer.0.") or "layer.1.L" in name or "ln_" in name
        )


def test_names_that_ddp_and_peft_wrap_meet_the_rules_of_the_plan() -> None:
    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = Model()

    rules = rules_of(Model(), layer__0=Rule(trainable=False))
    model = Wrapped()
    apply_rules(model, rules)
    assert not model.module.layer[0].dense.weight.requires_grad
    assert model.module.classifier.weight.requires_grad
    assert "classifier.weight" in groups_by_name(model, rules)


def test_the_untouched_copy_that_peft_keeps_stays_frozen() -> None:
    class Kept(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.original_module = torch.nn.Linear(2, 2)
            self.modules_to_save = torch.nn.ModuleDict({"default": torch.nn.Linear(2, 2)})

    model = torch.nn.Module()
    model.classifier = Kept()
    apply_rules(model, {"classifier.weight": Rule(), "classifier.bias": Rule()})
    assert not model.classifier.original_module.weight.requires_grad
    assert model.classifier.modules_to_save["default"].weight.requires_grad


def test_a_plan_for_parameters_that_the_model_lacks_is_an_error_that_names_them() -> None:
    with pytest.raises(TrainingFailed, match=r"does not have: layer\.7\.dense\.weight"):
        apply_rules(Model(), {"layer.7.dense.weight": Rule()})


JOB = TrainJob(
    request="",
    candidate="one",
    store="",
    dataset="",
    prepared="",
    base=None,
    auxiliaries={},
    out="",
    beside="",
    strategy={},
    peft=None,
    learner={},
    task={},
    controls=(),
    training={"max_steps": None, "batch_size": 16, "epochs": 3.0},
    workers=1,
    threads=1,
    zero_stage=0,
    offload="none",
    gradient_checkpointing=False,
    compile=False,
    micro_batch_size=16,
    accumulation=1,
    checkpoint_steps=200,
    checkpoints=None,
    plugins=(),
)


@pytest.mark.parametrize(
    ("examples", "changes", "steps"),
    [
        (32, {}, 6),
        (33, {}, 9),  # the last batch of an epoch is a short one
        (33, {"epochs": 0.5}, 2),
        (5, {"epochs": 0.1}, 1),  # never none
        (1000, {"max_steps": 7}, 7),
        (1000, {"batch_size": 1000, "epochs": 2}, 2),
    ],
)
def test_steps_are_batches_times_epochs_or_what_the_spec_says(examples: int, changes: dict, steps: int) -> None:
    assert _steps(examples, replace(JOB, training=JOB.training | changes)) == steps
