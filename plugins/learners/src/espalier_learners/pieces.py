"""The memory of log-probabilities that TRL computes in pieces, where logits of all tokens would be too large."""

from __future__ import annotations

_TOKENS, _WORDS = 4096, 32768  # of a piece, in TRL 1.16
_COPIES = 8  # of a piece that its gradient has at once in torch's own operations; a kernel writes into the piece itself
_FLOAT = 4


def loss_bytes(tokens: int, vocabulary: int, *, gpu: bool) -> int:
    """Returns what a loss takes at once beside the last states of a model, of as many tokens in all its sequences."""
    return min(tokens, _TOKENS) * _FLOAT * (_WORDS if gpu else _COPIES * min(vocabulary, _WORDS))
