"""What a model decides for each row, as one number, so that it can be traced back, and asked of a changed model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from espalier_sdk import Head
from espalier_sdk.columns import LABELS

if TYPE_CHECKING:
    import torch

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Decision:
    """The decisions for the rows of one batch.

    The score is the lead of the best answer over the second; for several labels the sum of their leads over the other
    answer, given or not; for tags the mean lead over the words; for a number the number.
    """

    score: Callable[[torch.Tensor], torch.Tensor]  # logits (rows, ...) -> (rows,)
    kept: Callable[[torch.Tensor], list[float]]  # logits -> 1 for each decision that is the same, else 0


def decide(logits: torch.Tensor, head: Head, batch: Mapping[str, torch.Tensor]) -> Decision:
    """Reads decisions from logits, (rows, outputs) or (rows, tokens, outputs); labels of the batch say which tokens."""
    logits = logits.detach()
    if logits.shape[-1] == 1:
        return Decision(lambda found: found.flatten(1).sum(dim=1), lambda found: [])
    if head.problem == "multi-label":
        given = logits.sign()
        return Decision(
            lambda found: (given * found).sum(dim=1),
            lambda found: (found.sign() == given).all(dim=1).double().tolist(),
        )
    best = logits.topk(2).indices

    def lead(found: Any) -> Any:
        pair = found.gather(-1, best)
        return pair[..., 0] - pair[..., 1]

    if head.kind == "sequence-classification":
        return Decision(lead, lambda found: (found.argmax(-1) == best[..., 0]).double().tolist())
    words = (batch[LABELS] != IGNORED) if LABELS in batch else batch["attention_mask"].bool()  # (rows, tokens)
    count = words.sum(dim=1).clamp(min=1)
    return Decision(
        lambda found: (lead(found) * words).sum(dim=1) / count,
        lambda found: (found.argmax(-1) == best[..., 0])[words].double().tolist(),
    )
