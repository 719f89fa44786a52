"""The small network of a bottleneck adapter, and the hooks that put it into a model."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Bottleneck(nn.Module):
    """Narrows, bends and widens again; its output is zero at the start (Houlsby et al. 2019)."""

    def __init__(self, width: int, size: int, *, activation: str, scale: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.down = nn.Linear(width, size, dtype=dtype)
        self.up = nn.Linear(size, width, dtype=dtype)
        self.activation, self.scale = getattr(functional, activation), scale
        self.held: torch.Tensor | None = None  # what a parallel adapter reads, between two hooks of one forward
        nn.init.zeros_(
            self.down.bias
        )  # torch's own is wider than what comes in: a narrow layer of ReLUs may be born dead
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the change of x, (batch, tokens, width)."""
        h = self.down(x.to(self.down.weight.dtype))  # (batch, tokens, size)
        return self.scale * self.up(self.activation(h)).to(x.dtype)


def behind(module: nn.Module, adapter: Bottleneck) -> None:
    """Lets the adapter read and change what a module puts out."""
    module.adapter = adapter
    module.register_forward_hook(_add_change)


def around(source: nn.Module, module: nn.Module, adapter: Bottleneck) -> None:
    """Lets the adapter read what goes into `source`, and add to what `module` puts out (He et al. 2022)."""
    module.adapter = adapter
    source.register_forward_pre_hook(partial(_hold_input, adapter))
    module.register_forward_hook(_add_change_of_held)


def _add_change(module: Any, arguments: Any, output: torch.Tensor) -> torch.Tensor:
    change: torch.Tensor = module.adapter(output)
    return output + change


def _hold_input(adapter: Bottleneck, module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
    adapter.held = arguments[0]


def _add_change_of_held(module: Any, arguments: Any, output: torch.Tensor) -> torch.Tensor:
    held, module.adapter.held = module.adapter.held, None
    change: torch.Tensor = module.adapter(held)
    return output + change
