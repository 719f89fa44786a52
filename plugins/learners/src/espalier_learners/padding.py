"""Batches: examples of different lengths padded to the longest one.

Knows no task: labels that stand one per token are padded, all else is stacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from espalier_sdk.columns import LABELS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

_STEP = 8
IGNORED_LABEL = -100  # what torch's cross entropy leaves out


class PadToLongest:
    """Pads tokens as the tokenizer does, and labels that stand one per token with what the loss leaves out.

    Up to `most` tokens a batch is as wide as the next multiple of 8. On a processor each new width costs memory for its
    kernels, which stay: 250 MiB of 1,450 for a small encoder on texts of 20 to 128 tokens. GPUs multiply these faster.
    """

    def __init__(self, tokenizer: Tokenizer, *, most: int | None = None) -> None:
        self._tokenizer, self._most = tokenizer, most or 0

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Returns tensors: `(batch, tokens)` for what is per token, `(batch, ...)` for the rest."""
        import numpy as np
        import torch

        padded = {*self._tokenizer.model_input_names, "special_tokens_mask"}
        tokens = [{name: value for name, value in one.items() if name in padded} for one in examples]
        longest = max(len(one["input_ids"]) for one in tokens)
        width = max(longest, min(-(-longest // _STEP) * _STEP, self._most))
        batch = dict(self._tokenizer.pad(tokens, padding="max_length", max_length=width, return_tensors="pt"))
        for name in examples[0].keys() - batch.keys():
            values = [np.asarray(one[name]) for one in examples]
            if name == LABELS and _per_token(values, examples):
                values = [self._widened(value, batch["input_ids"].shape[1]) for value in values]
            batch[name] = torch.from_numpy(np.stack(values))
        return batch

    def _widened(self, labels: Any, width: int) -> Any:
        import numpy as np

        missing = width - len(labels)
        sides = (missing, 0) if self._tokenizer.padding_side == "left" else (0, missing)
        return np.pad(labels, sides, constant_values=IGNORED_LABEL)


def _per_token(labels: Sequence[Any], examples: Sequence[dict[str, Any]]) -> bool:
    """Tells labels of tokens from those of whole texts: several labels per text are as many in every example."""
    return all(
        one.ndim == 1 and len(one) == len(example["input_ids"]) for one, example in zip(labels, examples, strict=True)
    )
