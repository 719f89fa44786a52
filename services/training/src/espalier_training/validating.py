"""The loss on validation as a mean over labels, however the rows are cut into batches.

Transformers averages the means of batches by their rows: where a row has a label for each token, that depends on how
many rows fit a worker's memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from espalier_sdk.columns import LABELS

if TYPE_CHECKING:
    from espalier_sdk import HeadKind

    from espalier_training.examples import Examples

_IGNORED = -100


class Shares:
    """How many labels a row of a batch has, of those that a row of all validation has."""

    def __init__(self, examples: Examples, head_kind: HeadKind) -> None:
        self._first = 1 if head_kind == "causal-lm" else 0  # a decoder's first token has no prediction
        labels = examples.lists(LABELS)
        self._per_row = np.mean([np.sum(one[self._first :] != _IGNORED) for one in labels]) if labels else None

    def of(self, inputs: Any) -> float:
        """Returns what a batch's mean loss is multiplied by; 1 where rows have equally many labels, or none yet."""
        labels = inputs.get(LABELS) if isinstance(inputs, Mapping) else None  # a policy's are a list of questions
        if not self._per_row or labels is None:
            return 1.0
        counted = int((labels[:, self._first :] != _IGNORED).sum())
        return counted / len(labels) / float(self._per_row)
