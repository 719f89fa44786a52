"""Rare labels count more: a trainer whose loss gives all labels the same say, whatever their number of examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from espalier_sdk import SpecError

if TYPE_CHECKING:
    import torch
    from transformers import Trainer

FIELD = "learner.config.class_weights"


def balanced(trainer_class: type[Trainer]) -> type[Trainer]:
    """Returns the trainer with weights of rows / (labels x rows of the label), counted on what it trains on.

    King and Zeng 2001, as scikit-learn's `class_weight="balanced"`. They are 1 on average over the train split, so that
    the loss is divided by examples, not by weights: several workers or accumulated passes weigh as one pass does. Of
    several labels per text each is weighed against its own absence.
    """
    base: Any = trainer_class

    class Balanced(base):  # type: ignore[misc]
        """Computes the loss itself, from the model's logits."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            problem = getattr(self.model.config, "problem_type", None)
            self._weights = _weights(self.train_dataset, problem, self.model.config.num_labels)

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
            loss = _loss(outputs.logits, inputs["labels"], self._weights)
            return (loss, outputs) if return_outputs else loss

    found: type[Trainer] = Balanced
    return found


def _weights(examples: Any, problem: str | None, outputs: int) -> torch.Tensor:
    """Returns a weight per label, float32; for several labels per text that of a label that is there."""
    import numpy as np
    import torch

    if problem == "regression":
        raise SpecError("weighs labels, and this task has numbers", field=FIELD, remedy="leave class_weights out")
    labels = np.concatenate([np.atleast_1d(examples[index]["labels"]) for index in range(len(examples))])
    if problem == "multi_label_classification":
        there = labels.reshape(len(examples), outputs).sum(axis=0)
        weights = (len(examples) - there) / np.maximum(there, 1)
    else:
        counts = np.bincount(labels[labels >= 0].astype(np.int64), minlength=outputs)
        weights = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return torch.tensor(weights, dtype=torch.float32)


def _loss(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Returns the mean over examples, or over tokens that have a label.

    logits [rows, outputs] or [rows, tokens, outputs]; labels [rows], [rows, tokens] with -100 where there is none, or
    [rows, outputs] of 0 and 1.
    """
    from torch.nn import functional

    logits, weights = logits.float(), weights.to(logits.device)
    if labels.is_floating_point():
        return functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)
    flat, labels = logits.flatten(0, -2), labels.flatten()
    summed = functional.cross_entropy(flat, labels, weight=weights, ignore_index=-100, reduction="sum")
    return summed / (labels >= 0).sum().clamp(min=1)
