"""The order in which examples are shown: one seeded order per epoch, whatever was run before in this process."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any


class EpochOrder:
    """A sampler whose order depends on seed and epoch alone, so that a resumed run sees what it would have seen.

    Examples of like length share a batch: less padding, the same examples. Grouped by the whole batch, not by a
    worker's share, so that the order is the same for any number of workers.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = list(lengths), batch_size, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        return self._of(self.epoch)

    def batch(self, step: int) -> list[int]:
        """Returns the examples of an optimizer step, all workers' together; steps count from 1, over all epochs."""
        epoch, place = divmod(step - 1, math.ceil(len(self._lengths) / self._batch_size))
        return list(self._of(epoch))[place * self._batch_size : (place + 1) * self._batch_size]

    def _of(self, epoch: int) -> Iterator[int]:
        import torch
        from transformers.trainer_pt_utils import LengthGroupedSampler

        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        return iter(LengthGroupedSampler(self._batch_size, lengths=self._lengths, generator=generator))


def follow_epochs(order: EpochOrder) -> Any:
    """Returns the callback that tells the order which epoch begins, also where a run goes on in the middle of one."""
    from transformers import TrainerCallback

    class FollowEpochs(TrainerCallback):
        """Reads the epoch from the trainer's own count of steps."""

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            order.epoch = int((state.epoch or 0.0) + 1e-6)

    return FollowEpochs()
