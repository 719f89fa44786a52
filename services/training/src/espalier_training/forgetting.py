"""What training leaves of a base: a fixed sample of general text, read by the base and by what became of it.

Reported, and never chosen by. Knows no strategy and no PEFT method: it reads whatever model it is shown.
"""

from __future__ import annotations

import math
from functools import cached_property
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from espalier_sdk.columns import SIDE

if TYPE_CHECKING:
    import torch
    from espalier_sdk import Blueprint
    from transformers import PreTrainedTokenizerBase as Tokenizer

_LONGEST = 128  # tokens; no text of the sample is as long in a usual vocabulary
_FLAT = 1e-9  # a deviation of cosines below this is rounding


class Recall:
    """Reads the sample with a base, and again with what training made of it."""

    def __init__(self, tokenizer: Tokenizer, *, virtual_tokens: int = 0) -> None:
        text = files("espalier_training").joinpath("general.txt").read_text(encoding="utf-8")
        self._virtual_tokens = virtual_tokens
        longest = min(_LONGEST, tokenizer.model_max_length) - virtual_tokens
        self._rows: list[list[int]] = tokenizer(text.splitlines(), truncation=True, max_length=longest)["input_ids"]
        self._sample = sha256(text.encode()).hexdigest()
        self._side_width = 0
        self._measure: Literal["likelihood", "similarity"] = "similarity"
        self._before = np.empty(0)

    def before(self, base: torch.nn.Module, blueprint: Blueprint) -> None:
        """Reads the sample with a base as it is.

        What writes is measured by likelihood, if the base could write at all; all else by how it places texts.
        """
        writes = blueprint.head.kind == "causal-lm" and not blueprint.new_modules
        self._measure = "likelihood" if writes else "similarity"
        self._side_width = blueprint.head.side_width
        if blueprint.positions is not None:
            self._rows = [row[: blueprint.positions - self._virtual_tokens] for row in self._rows]
        self._before = self._read(base)

    def after(self, model: torch.nn.Module) -> dict[str, Any]:
        """Returns the figures of both readings, as JSON; `before` must have been called.

        `similarity`: `rank_correlation` (Spearman) and `correlation` (Pearson) between the cosine similarities of all
        pairs of texts, mean-pooled, and the mean cosine before and after. `likelihood`: perplexity before and after.
        """
        after = self._read(model)
        told = {"measure": self._measure, "texts": len(self._rows), "sample": self._sample}
        if self._measure == "likelihood":
            scored = int(self._scored.sum())
            names = ("perplexity_before", "perplexity_after")
            return told | {
                name: math.exp(min(math.fsum(one) / scored, 700.0))
                for name, one in zip(names, (self._before, after), strict=True)
            }
        return told | agreement(self._before, after)

    @cached_property
    def _scored(self) -> np.ndarray:
        return np.array([len(row) - 1 for row in self._rows])

    def _read(self, model: torch.nn.Module) -> np.ndarray:
        """Returns one row per text: its mean state, or its negative log-likelihood; texts of one length together."""
        import torch
        from accelerate.utils import extract_model_from_parallel

        # Training in bfloat16 leaves its rounding around `forward`: both are read in the weights' own precision.
        model = extract_model_from_parallel(model, keep_fp32_wrapper=False)
        was_training = model.training
        model.eval()
        read = _likelihood if self._measure == "likelihood" else _mean_state
        device = next(model.parameters()).device
        found: dict[int, np.ndarray] = {}
        # What is frozen may be in bfloat16, and what was added beside it in float32.
        dtypes = {parameter.dtype for parameter in model.parameters()}
        mixed = torch.autocast(device.type, torch.bfloat16, enabled=torch.bfloat16 in dtypes)
        # Each length would be compiled anew.
        with torch.no_grad(), mixed, torch.compiler.set_stance("force_eager"):
            for places in self._groups:
                ids = torch.tensor([self._rows[place] for place in places], device=device)
                inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
                if self._side_width:
                    inputs[SIDE] = torch.zeros(len(ids), self._side_width, device=device)
                found.update(zip(places, read(model, inputs).double().cpu().numpy(), strict=True))
        model.train(was_training)
        return np.array([found[place] for place in range(len(self._rows))])

    @cached_property
    def _groups(self) -> list[list[int]]:
        """Returns the places of texts by their length: a batch without padding asks nothing of model or method."""
        places: dict[int, list[int]] = {}
        for place, row in enumerate(self._rows):
            places.setdefault(len(row), []).append(place)
        return list(places.values())


def agreement(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Returns how alike two models place the same texts; each (texts, width).

    A correlation is 0 where one side places all texts alike.
    """
    one, other = _cosines(before), _cosines(after)
    flat = min(one.std(), other.std()) < _FLAT
    return {
        "rank_correlation": 0.0 if flat else float(np.corrcoef(ranks(one), ranks(other))[0, 1]),
        "correlation": 0.0 if flat else float(np.corrcoef(one, other)[0, 1]),
        "cosine_before": float(one.mean()),
        "cosine_after": float(other.mean()),
    }


def _cosines(states: np.ndarray) -> np.ndarray:
    """Returns the cosine of each pair of rows, (texts * (texts - 1) / 2,)."""
    unit = states / np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-12)
    return (unit @ unit.T)[np.triu_indices(len(states), k=1)]


def ranks(values: np.ndarray) -> np.ndarray:
    """Returns ranks from 0; equal values share their mean rank."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return ((last - count + last - 1) / 2)[place]


def _mean_state(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Returns the mean of the body's last states over the tokens, (texts, width), whatever head stands on it."""
    from transformers import PreTrainedModel

    seen: list[Any] = []
    whole = next(one for one in model.modules() if isinstance(one, PreTrainedModel))
    handle = whole.base_model.register_forward_hook(lambda _module, _given, output: seen.append(output))
    try:
        model(**inputs)
    finally:
        handle.remove()
    count = inputs["input_ids"].shape[1]  # virtual tokens stand in front
    states: torch.Tensor = seen[-1][0][:, -count:]  # (texts, tokens, width)
    return states.double().mean(dim=1)


def _likelihood(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Returns the negative log-likelihood of all tokens but the first, (texts,)."""
    import torch

    wanted = inputs["input_ids"][:, 1:]
    logits = model(**inputs).logits[:, -wanted.shape[1] - 1 : -1].float()  # (texts, tokens, vocabulary)
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none").sum(dim=1)
