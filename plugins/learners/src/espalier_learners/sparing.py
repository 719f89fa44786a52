"""Logits of those tokens alone that the loss counts: not of prompts, not of padding, not of words that stay unmasked.

A language model's last layer is as wide as its vocabulary. Knows transformers' causal and masked language models, and
their heads for the span that answers a question, whose loss has a share for padding that is left out too: how wide a
batch was padded then makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from espalier_sdk.columns import ENDS, STARTS

from espalier_learners.padding import IGNORED_LABEL

if TYPE_CHECKING:
    import torch
    from transformers import Trainer


def sparing(trainer_class: type[Trainer]) -> type[Trainer]:
    """Returns the trainer with a loss that is the same and costs less; what has neither head is left."""
    base: Any = trainer_class

    class Sparing(base):  # type: ignore[misc]
        """Narrows what a language model's head is given while the loss is computed."""

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
            if STARTS in inputs:
                outputs = model(**inputs)
                loss = _span_loss(outputs, inputs)
                return (loss, outputs) if return_outputs else loss
            with _narrowed(self.accelerator.unwrap_model(model)):
                return super().compute_loss(model, inputs, return_outputs=return_outputs, **more)

    found: type[Trainer] = Sparing
    return found


def _span_loss(outputs: Any, inputs: Any) -> torch.Tensor:
    """Returns the loss of both ends of a span, a softmax over a text's own tokens (Devlin et al. 2019, section 4.2)."""
    from torch.nn import functional

    padding = inputs["attention_mask"] == 0
    ends = ((outputs.start_logits, STARTS), (outputs.end_logits, ENDS))
    start, end = (
        functional.cross_entropy(logits.float().masked_fill(padding, float("-inf")), inputs[name])
        for logits, name in ends
    )
    return (start + end) / 2


@contextmanager
def _narrowed(model: Any) -> Iterator[None]:
    """Lets the head of a language model see `(1, counted, width)` instead of `(batch, tokens, width)`.

    The model's own loss gets the labels of those places. Hooks that were there before, as those that put virtual tokens
    before a text, have done their work on the labels by then.
    """
    shifting = _shifts(model)
    head = model.get_output_embeddings() if shifting is not None else None
    if head is None:
        yield
        return
    places: list[torch.Tensor] = []

    def narrow_labels(_: Any, arguments: Any, given: dict[str, Any]) -> Any:
        places.clear()
        if given.get("labels") is None:
            return None
        found, labels = _counted(given["labels"], shifting=bool(shifting))
        places.append(found)
        return arguments, {**given, "labels": labels[None]}

    def narrow_states(_: Any, arguments: Any) -> Any:
        if not places:
            return None
        return (arguments[0].flatten(0, 1).index_select(0, places[0])[None], *arguments[1:])

    hooks = (
        model.register_forward_pre_hook(narrow_labels, with_kwargs=True),
        head.register_forward_pre_hook(narrow_states),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _shifts(model: Any) -> bool | None:
    """Tells whether a model's loss compares a place with the label of the next one; None: it is no language model."""
    from transformers.models.auto import modeling_auto

    whole = model.get_base_model() if hasattr(model, "get_base_model") else model  # inside what peft wraps around it
    name = type(whole).__name__
    if name in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return True
    return False if name in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.values() else None


def _counted(labels: torch.Tensor, *, shifting: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the places among all tokens of a batch that count, and labels as long, as the model's loss reads them.

    Where it shifts labels by one, an empty one stands before them and any place behind the others.
    """
    from torch.nn import functional

    if shifting:
        labels = functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)  # of the next token
    labels = labels.flatten()
    places = (labels != IGNORED_LABEL).nonzero().squeeze(1)
    kept = labels[places]
    if shifting:
        places, kept = functional.pad(places, (0, 1)), functional.pad(kept, (1, 0), value=IGNORED_LABEL)
    return places, kept
