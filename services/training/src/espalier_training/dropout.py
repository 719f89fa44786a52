"""Dropout on a processor by drawing the places that fall out, instead of a number for every place.

The gaps between places that fall out independently of each other, each with the same probability, follow a geometric
distribution (Devroye 1986, X.2): what is drawn is as many numbers as fall out. PyTorch draws one per place, with one
thread, and multiplies by a mask as large as the input; there this was 15 % of a training step with LoRA.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch.nn import functional


def thin_dropout(model: torch.nn.Module) -> None:
    """Lets every dropout layer of a model draw gaps where it is given what lies on a processor."""
    for module in model.modules():
        if type(module) is torch.nn.Dropout:
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]


def _forward(self: torch.nn.Dropout, given: torch.Tensor) -> torch.Tensor:
    if not self.training or given.device.type != "cpu" or not 0 < self.p < 1:
        return functional.dropout(given, self.p, self.training)
    dropped: torch.Tensor = _Dropout.apply(given, _fallen(given.numel(), self.p), 1 / (1 - self.p))  # type: ignore[no-untyped-call]
    return dropped


def _fallen(count: int, share: float) -> torch.Tensor:
    """Returns which of `count` places fall out, ascending, int64; drawn by torch's generator."""
    likely = count * share
    asked = int(likely + 6 * likely**0.5) + 8
    last, drawn = torch.tensor(-1), []
    while last < count:  # once, but for a chance of one in a thousand million
        drawn.append(last + torch.empty(asked, dtype=torch.int64).geometric_(share).cumsum(0))
        last = drawn[-1][-1]
    places = torch.cat(drawn)
    return places[: int(torch.searchsorted(places, count))]


class _Dropout(torch.autograd.Function):
    """Sets places to zero and scales the others, in both directions."""

    @staticmethod
    def forward(context: Any, given: torch.Tensor, fallen: torch.Tensor, scale: float) -> torch.Tensor:
        context.save_for_backward(fallen)
        context.scale = scale
        return _thinned(given, fallen, scale)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _thinned(gradients[0], context.saved_tensors[0], context.scale), None, None


def _thinned(given: torch.Tensor, fallen: torch.Tensor, scale: float) -> torch.Tensor:
    scaled = torch.empty_like(given, memory_format=torch.contiguous_format)
    torch.mul(given, scale, out=scaled)
    scaled.view(-1).index_fill_(0, fallen, 0)
    return scaled
