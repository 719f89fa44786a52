"""Packing: several short examples in one row of tokens, none of which sees another.

A row carries `position_ids` that begin anew with each example and no attention mask: transformers then builds a causal
mask in which an example sees only itself, if it keeps no cache of keys; with one it says nothing and lets all be seen.
The first label of each example is left out, because it would be predicted
from the example before it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from espalier_sdk.columns import ENCODED_ROW, LABELS

from espalier_learners.padding import IGNORED_LABEL

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase as Tokenizer

POSITIONS = "position_ids"


def pack(encoded: pa.Table, *, max_tokens: int) -> pa.Table:
    """Returns rows of at most `max_tokens` tokens that hold all examples, each whole, with `position_ids`.

    Longest first, each into the fullest row that still has room (best fit, Johnson et al. 1974).
    """
    import pyarrow as pa

    ids, labels = encoded.column("input_ids").to_pylist(), encoded.column(LABELS).to_pylist()
    rows: dict[str, list[Any]] = {ENCODED_ROW: [], "input_ids": [], LABELS: [], POSITIONS: []}
    for places in best_fit([len(one) for one in ids], size=max_tokens):
        rows[ENCODED_ROW].append(places[0])
        rows["input_ids"].append([token for place in places for token in ids[place]])
        rows[LABELS].append([label for place in places for label in [IGNORED_LABEL, *labels[place][1:]]])
        rows[POSITIONS].append([position for place in places for position in range(len(ids[place]))])
    kinds = {ENCODED_ROW: pa.int64(), "input_ids": pa.list_(pa.int32())}
    return pa.table({name: pa.array(values, kinds.get(name, pa.list_(pa.int64()))) for name, values in rows.items()})


def best_fit(lengths: Sequence[int], *, size: int) -> list[list[int]]:
    """Returns places of lengths, grouped so that no group's sum is above `size`; no length may be."""
    groups: list[list[int]] = []
    room: list[tuple[int, int]] = []  # what is left of a group, and the group; sorted
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        length = lengths[place]
        at = bisect_left(room, (length, -1))
        left, group = room.pop(at) if at < len(room) else (size, len(groups))
        if group == len(groups):
            groups.append([])
        groups[group].append(place)
        insort(room, (left - length, group))
    return groups


class PadPacks:
    """Pads packed rows to the longest one; what fills a row is an example of its own without a label."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._fill = tokenizer.pad_token_id

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Returns `input_ids`, `position_ids`, `labels`, each `(batch, tokens)`, and `use_cache`; no attention mask."""
        import numpy as np
        import torch

        width = max(len(one["input_ids"]) for one in examples)
        batch: dict[str, Any] = {"use_cache": False}
        for name, fill in (("input_ids", self._fill), (LABELS, IGNORED_LABEL), (POSITIONS, 0)):
            rows = np.full((len(examples), width), fill, dtype=np.int64)
            for row, one in zip(rows, examples, strict=True):
                count = len(one[name])
                row[:count] = one[name]
                if name == POSITIONS:
                    row[count:] = np.arange(width - count)
            batch[name] = torch.from_numpy(rows)
        return batch
