"""Dropout by gaps: the same distribution as PyTorch's, in both directions, from torch's own generator."""

from __future__ import annotations

import copy

import pytest
import torch
from espalier_training.dropout import thin_dropout


def layer(share: float) -> torch.nn.Module:
    made = torch.nn.Sequential(torch.nn.Dropout(share))
    thin_dropout(made)
    return made.train()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(7)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.5, 0.9])
def test_each_place_falls_out_with_the_share_and_whatever_fell_before_it(share: float) -> None:
    count = 400_000
    fallen = (layer(share)(torch.ones(count)) == 0).double()
    deviation = (share * (1 - share) / count) ** 0.5
    assert abs(fallen.mean().item() - share) < 5 * deviation
    assert abs(fallen[:1000].mean().item() - share) < 5 * deviation * 20  # not only on the whole
    for gap in (1, 2, 7, 256):  # neighbours, and places of one column
        both = (fallen[gap:] * fallen[:-gap]).mean().item()
        assert abs(both - share**2) < 6 * share / count**0.5


def test_what_stays_is_scaled_in_both_directions() -> None:
    given = torch.randn(3, 40, 8).transpose(1, 2).requires_grad_()  # not contiguous
    dropped = layer(0.25)(given)
    stays = dropped != 0
    torch.testing.assert_close(dropped[stays], given[stays] / 0.75)
    assert 0.6 < stays.float().mean() < 0.9
    dropped.backward(torch.full_like(dropped, 3.0))
    assert given.grad is not None
    torch.testing.assert_close(given.grad, torch.where(stays, 4.0, 0.0))


def test_the_generator_decides() -> None:
    given, made = torch.ones(1000), layer(0.1)
    state = torch.get_rng_state()
    first, second = made(given), made(given)
    torch.set_rng_state(state)
    assert torch.equal(made(given), first)
    assert torch.equal(made(given), second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_type_and_shape_are_kept(dtype: torch.dtype) -> None:
    for shape in ((), (0,), (1,), (2, 3, 5)):
        dropped = layer(0.3)(torch.ones(shape, dtype=dtype))
        assert (dropped.dtype, dropped.shape) == (dtype, shape)


def test_all_none_and_evaluation_are_pytorchs() -> None:
    given = torch.randn(50)
    assert torch.equal(layer(0.0)(given), given)
    assert torch.equal(layer(1.0)(given), torch.zeros(50))
    assert torch.equal(layer(0.5).eval()(given), given)


def test_a_copy_of_the_model_drops_for_itself() -> None:
    made = layer(0.5)
    copied = copy.deepcopy(made).eval()
    given = torch.ones(100)
    assert torch.equal(copied(given), given)
    assert not torch.equal(made(given), given)


def test_gradients_are_the_same_where_activations_are_computed_again() -> None:
    from torch.utils.checkpoint import checkpoint

    made = torch.nn.Sequential(torch.nn.Linear(20, 20), torch.nn.Dropout(0.2), torch.nn.Linear(20, 1))
    thin_dropout(made)
    gradients = []
    for again in (False, True):
        torch.manual_seed(3)
        made.zero_grad()
        given = torch.ones(30, 20)
        loss = checkpoint(made, given, use_reentrant=False) if again else made(given)
        loss.sum().backward()
        gradients.append([value.grad.clone() for value in made.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
