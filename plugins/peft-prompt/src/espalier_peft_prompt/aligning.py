"""Virtual tokens in front of a model's input, and an output that aligns with the real ones all the same.

Virtual tokens are numbered behind the vocabulary, so that the model still sees `input_ids`: a pooled decoder finds the
padding, `generate` works, and the model keeps its own class and names. Hooks do it, from the outside.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from espalier_peft_prompt.folder import PROMPT
from espalier_peft_prompt.layers import Prompt

IGNORED = -100  # torch's label of what has no loss


def install(model: Any, prompt: Prompt, *, kind: str) -> None:
    """Puts a prompt in front of whatever the model reads."""
    embedding = model.get_input_embeddings()
    setattr(model, PROMPT, prompt.to(embedding.weight.device))
    embedding.register_forward_pre_hook(partial(_hide, prompt))
    embedding.register_forward_hook(partial(_fill_in, prompt))
    model.register_forward_pre_hook(partial(_lengthen, prompt, kind, embedding.num_embeddings), with_kwargs=True)
    model.register_forward_hook(partial(_cut, prompt, kind), with_kwargs=True)


def named(model: Any, arguments: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
    """Returns a call's arguments by name; ValueError where there are no `input_ids` to put tokens in front of."""
    names = list(inspect.signature(model.forward).parameters)
    by_name = dict(zip(names, arguments, strict=False)) | given
    if by_name.get("input_ids") is None:
        raise ValueError("virtual tokens need input_ids; inputs_embeds cannot be lengthened")
    return by_name


def lengthen_mask(given: dict[str, Any], count: int) -> bool:
    """Makes room for `count` tokens in mask and positions, and tells whether the model has yet to read them."""
    ids = given["input_ids"]
    cache = given.get("past_key_values")
    seen = cache is not None and cache.get_seq_length() > 0
    mask = given.get("attention_mask")
    if mask is not None:
        given["attention_mask"] = torch.cat([mask.new_ones(len(ids), count), mask], dim=1)
    if given.get("position_ids") is not None:
        given["position_ids"] = given["position_ids"] + count
    return not seen


def _lengthen(
    prompt: Prompt, kind: str, vocabulary: int, model: Any, arguments: tuple[Any, ...], given: dict[str, Any]
) -> tuple[tuple[()], dict[str, Any]]:
    given = named(model, arguments, given)
    count, ids = prompt.count, given["input_ids"]
    prompt.lengthened = lengthen_mask(given, count)
    if prompt.lengthened:
        rows = torch.arange(count, device=ids.device).expand(len(ids), count)
        given["input_ids"] = torch.cat([rows + vocabulary, ids], dim=1)
        if given.get("token_type_ids") is not None:
            given["token_type_ids"] = functional.pad(given["token_type_ids"], (count, 0))
        if given.get("position_ids") is not None:
            places = given["position_ids"]
            given["position_ids"] = torch.cat([rows[: len(places)], places], dim=1)
        _shift_labels(given, kind, count)
    return (), given


def _shift_labels(given: dict[str, Any], kind: str, count: int) -> None:
    if kind in ("causal-lm", "masked-lm", "token-classification") and given.get("labels") is not None:
        labels = functional.pad(given["labels"], (count, 0), value=IGNORED)
        if (
            kind == "causal-lm"
        ):  # the first token would be learned from the prompt, where the base learns it from nothing
            labels[:, count] = IGNORED
        given["labels"] = labels
    for name in ("start_positions", "end_positions"):
        if given.get(name) is not None:
            given[name] = given[name].clamp(min=0) + count


def _hide(prompt: Prompt, embedding: Any, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
    if not prompt.lengthened:
        return None
    prompt.held = arguments[0]
    return (arguments[0].clamp(max=embedding.num_embeddings - 1), *arguments[1:])


def _fill_in(prompt: Prompt, embedding: Any, arguments: Any, output: torch.Tensor) -> torch.Tensor:
    if prompt.held is None:
        return output
    places, prompt.held = prompt.held - embedding.num_embeddings, None  # (batch, tokens)
    rows = prompt()[places.clamp(min=0)].to(output.dtype)  # (batch, tokens, width)
    return torch.where((places >= 0)[..., None], rows, output)


def _cut(prompt: Prompt, kind: str, model: Any, arguments: Any, given: dict[str, Any], output: Any) -> Any:
    if not prompt.lengthened or kind == "sequence-classification":
        return output
    tokens = given["input_ids"].shape[1] - prompt.count
    for name in ("logits", "start_logits", "end_logits"):
        if name in output and output[name].shape[1] > tokens:
            output[name] = output[name][:, -tokens:]
    if kind == "question-answering" and given.get("start_positions") is not None:
        # The model's own loss lets a span begin at a virtual token.
        output["loss"] = (
            sum(
                _place_loss(output[f"{word}_logits"], given[f"{word}_positions"] - prompt.count)
                for word in ("start", "end")
            )
            / 2
        )
    return output


def _place_loss(logits: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Returns the loss of one end of a span as transformers has it: places behind the text count for nothing."""
    return functional.cross_entropy(logits, places.clamp(max=logits.shape[1]), ignore_index=logits.shape[1])
