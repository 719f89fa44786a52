"""What virtual tokens take from a base's token embeddings: their width, and where they start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from espalier_sdk import Blueprint, SpecError

if TYPE_CHECKING:
    import torch


def token_width(blueprint: Blueprint) -> int:
    """Returns the width of the base's token embeddings, which come first among its parameters."""
    found = next((one for one in blueprint.parameters if one.role == "embedding" and len(one.shape) == 2), None)
    if found is None:
        raise SpecError("the base has no token embeddings that its parameters' names tell", field="peft")
    return found.shape[1]


def start_at_random(embedding: torch.nn.Embedding, base: Any) -> None:
    """Draws vectors with the spread of the base's own: torch's spread of 1 is fifty times that of a BERT."""
    import torch

    known = base.get_input_embeddings().weight.detach()
    if not known.is_meta:  # where shapes alone are asked for, there is nothing to draw
        torch.nn.init.normal_(embedding.weight, std=float(known.float().std()))


def start_from(text: str, embedding: torch.nn.Embedding, base: Any) -> None:
    """Copies the vectors of a text's tokens, as often as needed; SpecError where the base brought no tokenizer."""
    import torch
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base.name_or_path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise SpecError("the base has no tokenizer to read text with", field="peft.config.text") from error
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise SpecError("holds no token of the base", field="peft.config.text", given=text)
    count = embedding.num_embeddings
    rows = (ids * -(-count // len(ids)))[:count]
    with torch.no_grad():
        embedding.weight.copy_(base.get_input_embeddings().weight[rows])
