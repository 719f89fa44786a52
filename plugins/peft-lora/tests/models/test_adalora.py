"""AdaLoRA against its kit, and its budget of ranks through training, a stop and a resume."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
from espalier_peft_lora import AdaLora
from espalier_sdk import Head, Placement
from espalier_sdk.testing import check_peft_method
from espalier_sdk.testing.tiny import batch, one_thread, tiny

HEAD = Head("sequence-classification", outputs=3)
CONFIG = {"start_rank": 6, "rank": 4, "targets": ("query", "value"), "dropout": 0, "settled": 0.25}
STEPS = 8


def start(**config: Any) -> tuple[AdaLora, Any, Any]:
    import torch

    torch.manual_seed(3)
    made = tiny("bert", HEAD)
    for module in made.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # so that a resumed run sees the same numbers
    method = AdaLora(AdaLora.Config.model_validate(CONFIG | config))
    model = method.inject(made.model, blueprint=made.blueprint, placement=Placement(), calibration=())
    return method, model, torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)


def train(method: AdaLora, model: Any, optimizer: Any, steps: Sequence[int], *, of: int = STEPS) -> None:
    import torch

    model.train()
    with one_thread():
        for step in steps:
            optimizer.zero_grad()
            model(**batch([7, 5, 6], seed=step), labels=torch.tensor([0, 1, 2])).loss.backward()
            optimizer.step()
            method.after_step(model, step=step, steps=of)


def kept(model: Any) -> list[int]:
    """Returns how many ranks of each layer are in use."""
    return [int((value != 0).sum()) for name, value in model.named_parameters() if "lora_E" in name]


def test_adalora_passes_its_kit() -> None:
    refused = [{"rank": 12}, {"warmup": 0.6, "settled": 0.5}, {"targets": ["no-such-layer"]}, {"interval": 0}]
    check_peft_method("adalora", refused=refused)


def test_ranks_are_taken_away_until_the_budget_is_met_and_stay_away() -> None:
    method, model, optimizer = start()
    train(method, model, optimizer, [0])
    assert sum(kept(model)) > 4 * 4
    train(method, model, optimizer, range(1, STEPS))
    assert sum(kept(model)) == 4 * 4  # two blocks with two targets each, four ranks on average


@pytest.mark.parametrize("stop", [3, 6])  # while ranks are taken away, and when they are settled
def test_a_resumed_run_takes_the_same_ranks_as_one_that_did_not_stop(stop: int) -> None:
    import torch

    method, model, optimizer = start()
    train(method, model, optimizer, range(stop))
    state = copy.deepcopy((model.state_dict(), optimizer.state_dict(), dict(method.extra_state(model))))
    train(method, model, optimizer, range(stop, STEPS))
    other, resumed, again = start()
    resumed.load_state_dict(state[0])
    again.load_state_dict(state[1])
    other.restore(resumed, state[2])
    train(other, resumed, again, range(stop, STEPS))
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), resumed.parameters(), strict=True))
    assert sum(kept(resumed)) == 4 * 4


def test_a_training_too_short_to_rank_anything_keeps_all_ranks() -> None:
    method, model, optimizer = start()
    train(method, model, optimizer, [0], of=1)
    assert kept(model) == [6] * 4


def test_the_orthogonality_term_is_in_the_training_loss_alone() -> None:
    import torch

    def losses(**config: Any) -> list[float]:
        _, model, _ = start(**config)
        given = batch([7, 5, 6]) | {"labels": torch.tensor([0, 1, 2])}
        return [float(model.train(training)(**given).loss.detach()) for training in (True, False)]

    training, validation = losses()
    assert validation == pytest.approx(losses(orthogonality=0)[1], abs=1e-6)
    assert training > validation + 0.1
