"""Masks that are drawn while batches are made, and the trainer that tells for which epoch.

Knows no task: it gets tokens, and for whole words which word each is a piece of.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from espalier_sdk import DataError
from espalier_sdk.columns import LABELS

from espalier_learners.padding import IGNORED_LABEL, PadToLongest

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase as Tokenizer
    from transformers import Trainer

WORD = "word"  # list<int32>: which word each token is a piece of, -1 for special ones; read here, not by the model
_MASKED, _REPLACED = 0.8, 0.1  # of the tokens asked for; the others stay (Devlin et al. 2019, A.1)


class MaskTokens:
    """Asks for some tokens of each example and pads to the longest one.

    What is drawn depends on the example's tokens, `seed` and `epoch`, and on nothing else of the batch or the process.
    `epoch` None stands for held-out text, of which the same is asked whenever it is measured.
    """

    def __init__(self, tokenizer: Tokenizer, *, share: float, most: int | None = None) -> None:
        import numpy as np

        if tokenizer.mask_token_id is None:
            raise DataError(
                "the tokenizer has no mask token: a model could not be told which words miss",
                code="no_mask_token",
                field="mask_token",
                remedy="choose a base that is an encoder",
            )
        self._mask: int = tokenizer.mask_token_id
        self._special = np.array(sorted(set(tokenizer.all_special_ids)))
        self._ordinary = np.setdiff1d(np.arange(len(tokenizer)), self._special)
        self._share, self._pad = share, PadToLongest(tokenizer, most=most)
        self.seed = 0
        self.epoch: int | None = None

    def held_out(self) -> MaskTokens:
        """Returns the same for held-out text."""
        found = copy.copy(self)
        found.epoch = None
        return found

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Returns `input_ids`, `attention_mask` and `labels`, each (batch, tokens); labels are -100 where none is."""
        return self._pad([self._masked(one) for one in examples])

    def _masked(self, example: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        ids = np.asarray(example["input_ids"], dtype=np.int64)
        draw = blake2b(ids.astype("<i8").tobytes(), digest_size=8, key=f"{self.seed} {self.epoch}".encode())
        chance = np.random.default_rng(int.from_bytes(draw.digest(), "little"))
        asked = self._asked(ids, example.get(WORD), chance)
        fate = chance.random(len(asked))
        shown, labels = ids.copy(), np.full_like(ids, IGNORED_LABEL)
        labels[asked] = ids[asked]
        shown[asked[fate < _MASKED]] = self._mask
        other = asked[(fate >= _MASKED) & (fate < _MASKED + _REPLACED)]
        shown[other] = chance.choice(self._ordinary, size=len(other))
        return {"input_ids": shown, "attention_mask": example["attention_mask"], LABELS: labels}

    def _asked(self, ids: np.ndarray, words: Any, chance: np.random.Generator) -> np.ndarray:
        """Returns the places that are asked for: a share of those that are not special, one at least."""
        import numpy as np

        places = np.flatnonzero(~np.isin(ids, self._special))
        count = max(1, round(self._share * len(places)))
        if words is None:
            return chance.choice(places, size=min(count, len(places)), replace=False)
        # Whole words in any order, each that still fits, as BERT's own script fills its share.
        own = np.asarray(words)[places]
        found: list[np.ndarray] = []
        for word in chance.permutation(np.unique(own)):
            pieces = places[own == word]
            if not found or sum(map(len, found)) + len(pieces) <= count:
                found.append(pieces)
        return np.concatenate(found) if found else places


def masking_trainer() -> type[Trainer]:
    """Returns transformers' Trainer with MaskTokens as its collator: other masks in each epoch, fixed ones for eval."""
    from transformers import Trainer, TrainerCallback

    class FollowEpochs(TrainerCallback):
        """Reads the epoch from the trainer's own count of steps, also where a run goes on in the middle of one."""

        def __init__(self, masks: MaskTokens) -> None:
            self._masks = masks

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._masks.epoch = int((state.epoch or 0.0) + 1e-6)

    class MaskingTrainer(Trainer):
        """The trainer, whose collator knows seed and epoch."""

        def __init__(self, *, data_collator: MaskTokens, **given: Any) -> None:
            super().__init__(data_collator=data_collator, **given)
            data_collator.seed = self.args.seed
            self.add_callback(FollowEpochs(data_collator))

        def get_eval_dataloader(self, *given: Any, **more: Any) -> Any:
            masks, self.data_collator = self.data_collator, self.data_collator.held_out()
            try:
                return super().get_eval_dataloader(*given, **more)
            finally:
                self.data_collator = masks

    return MaskingTrainer
