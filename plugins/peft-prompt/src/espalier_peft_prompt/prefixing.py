"""Keys and values of virtual tokens in front of every block's own, by way of the model's cache."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from espalier_sdk import SpecError

from espalier_peft_prompt.aligning import lengthen_mask, named
from espalier_peft_prompt.folder import PROMPT
from espalier_peft_prompt.layers import Prefix


def install(model: Any, prefix: Prefix, *, heads: int) -> None:
    """Lets every block attend to the prefix; SpecError where the model takes no cache."""
    if "past_key_values" not in inspect.signature(model.base_model.forward).parameters:
        raise SpecError(
            f"{type(model).__name__} takes no keys and values from outside",
            field="peft",
            accepted="BERT- and Llama-like bases",
            remedy="use prompt-tuning",
        )
    setattr(model, PROMPT, prefix.to(model.device))
    model.register_forward_pre_hook(partial(_prefill, prefix, heads), with_kwargs=True)


def _prefill(
    prefix: Prefix, heads: int, model: Any, arguments: tuple[Any, ...], given: dict[str, Any]
) -> tuple[tuple[()], dict[str, Any]]:
    from transformers import DynamicCache

    given = named(model, arguments, given)
    if lengthen_mask(given, prefix.count):
        if given.get("past_key_values") is None:
            given["past_key_values"] = DynamicCache()
        rows = len(given["input_ids"])
        for layer, (keys, values) in enumerate(prefix(heads).to(model.dtype)):  # (heads, count, head width)
            given["past_key_values"].update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
    return (), given
