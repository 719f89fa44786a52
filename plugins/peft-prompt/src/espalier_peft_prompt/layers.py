"""The networks that make virtual tokens; each is called without input and returns all of them."""

from __future__ import annotations

import torch
from torch import nn


class Prompt(nn.Module):
    """Virtual tokens as they are trained (Lester et al. 2021)."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, width)
        self.count, self.lengthened = count, False
        self.held: torch.Tensor | None = None  # the tokens between two hooks of one forward

    def forward(self) -> torch.Tensor:
        """Returns the virtual tokens, (count, width)."""
        return self.embedding.weight


class EncodedPrompt(Prompt):
    """Virtual tokens that a small network makes from trained ones (Liu et al. 2021)."""

    def __init__(self, count: int, width: int, hidden: int, encoder: str) -> None:
        super().__init__(count, width)
        recurrent = encoder == "lstm"
        self.lstm = nn.LSTM(width, hidden, bidirectional=True, batch_first=True) if recurrent else None
        middle = 2 * hidden if recurrent else hidden
        self.mlp = nn.Sequential(nn.Linear(middle if recurrent else width, middle), nn.ReLU(), nn.Linear(middle, width))

    def forward(self) -> torch.Tensor:
        """Returns the virtual tokens, (count, width)."""
        x = self.embedding.weight
        if self.lstm is not None:
            x = self.lstm(x[None])[0][0]
        made: torch.Tensor = self.mlp(x)
        return made


class Prefix(nn.Module):
    """Keys and values of virtual tokens for each block, trained or made by a network (Li and Liang 2021)."""

    def __init__(self, count: int, width: int, layers: int, hidden: int | None) -> None:
        super().__init__()
        self.count, self.layers = count, layers
        self.embedding = nn.Embedding(count, hidden or layers * 2 * width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.mlp = (
            nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, layers * 2 * width))
            if hidden
            else None
        )

    def forward(self, heads: int) -> torch.Tensor:
        """Returns keys and values, (layers, 2, heads, count, head width)."""
        x = self.embedding.weight
        made: torch.Tensor = x if self.mlp is None else self.mlp(x)
        return made.view(self.count, self.layers, 2, heads, -1).permute(1, 2, 3, 0, 4)
