"""Blueprints: a model's parameters with depth and role, read from the meta device.

Knows transformers' naming of blocks, no model family by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from espalier_sdk import Blueprint, DataError, Head, ParameterInfo
from espalier_sdk.heads import SIDE_COLUMNS, SIDE_LAYERS, build_model

if TYPE_CHECKING:
    import torch
    from espalier_sdk.model import Role
    from transformers import PretrainedConfig

_BLOCK = re.compile(r"(?:^|\.)(?:layer|layers|h|block|blocks)\.(\d+)\.")
_EMBEDDING = re.compile(r"(?:^|\.)(?:\w*embed\w*|wte|wpe)(?:\.|$)", re.IGNORECASE)
_POSITIONS = re.compile(r"(?:^|\.)(?:wpe|position_embeddings?|embed_positions|pos_embed\w*)$")
_NORM = re.compile(r"norm|(?:^|\.)ln_", re.IGNORECASE)


def quiet() -> None:
    """Keeps transformers from writing bars and notices: a stage reports its own progress."""
    from transformers.utils import logging

    logging.set_verbosity_error()  # "some weights are newly initialized" is what the blueprint says already
    logging.disable_progress_bar()


def blueprint_of(config: PretrainedConfig, head: Head, *, base: Path | None) -> Blueprint:
    """Returns the blueprint of a configuration; with a base, what the base has no weights for is new.

    So is a task's head of the right size: its rows may stand for other labels. It starts as the base has it.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        model = build_model(config, head)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    turned = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}
    blocks = 1 + max((int(match[1]) for name in shapes if (match := _BLOCK.search(name))), default=-1)
    prefix = str(model.base_model_prefix)
    new = _new_parameters(shapes, base, prefix=prefix) if base else set[str]()
    if base and head.kind not in ("causal-lm", "masked-lm"):
        new |= {name for name in shapes if not name.startswith(f"{prefix}.")}
    parameters = tuple(
        ParameterInfo(name, shape, *_place(name, blocks, is_new=name in new or base is None), transposed=name in turned)
        for name, shape in shapes.items()
    )
    modules = sorted({name.rpartition(".")[0] for name in new})
    outermost = tuple(_outermost(modules, set(shapes) - new))
    return Blueprint(config.to_diff_dict(), head, blocks, parameters, outermost, _positions(model, config))


def _place(name: str, blocks: int, *, is_new: bool) -> tuple[int, Role]:
    if name.partition(".")[0] in SIDE_LAYERS:
        return blocks + 1, "side" if name.startswith(SIDE_COLUMNS) else "head"
    match = _BLOCK.search(name)
    if match:
        return int(match[1]) + 1, "norm" if _NORM.search(name) else "block"
    if _EMBEDDING.search(name):
        return 0, "norm" if _NORM.search(name) else "embedding"
    if _NORM.search(name):
        return blocks + 1, "norm"
    return blocks + 1, "head" if is_new else "block"


def _new_parameters(shapes: Mapping[str, tuple[int, ...]], base: Path, *, prefix: str) -> set[str]:
    """Returns what the base has no weights for, or weights of another shape: another task's head."""
    from safetensors import safe_open

    files = sorted(base.glob("*.safetensors"))
    if not files:
        raise DataError(
            "has no *.safetensors", file=str(base), remedy="convert the weights to safetensors; pickle is not opened"
        )
    known: dict[str, tuple[int, ...]] = {}
    for file in files:
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - the handle is no mapping
                # Old BERT checkpoints spell LayerNorm's parameters gamma and beta.
                modern = re.sub(r"\.beta$", ".bias", re.sub(r"\.gamma$", ".weight", name))
                known[modern] = tuple(weights.get_slice(name).get_shape())
    return {
        name
        for name, shape in shapes.items()
        if shape not in (known.get(name), known.get(name.removeprefix(f"{prefix}.")))
    }


def _positions(model: torch.nn.Module, config: PretrainedConfig) -> int | None:
    """Returns how many tokens the tables of positions have rows for; None where there is none.

    Some tables begin with rows that no token gets: up to that of padding (RoBERTa), or a fixed number (OPT).
    """
    from torch.nn import Embedding

    rows = [buffer.shape[0] for name, buffer in model.named_buffers() if buffer.dim() == 2 and _POSITIONS.search(name)]
    for name, module in model.named_modules():
        if isinstance(module, Embedding) and _POSITIONS.search(name):
            unused = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            rows.append(module.num_embeddings - unused)
    told = getattr(config.get_text_config(), "max_position_embeddings", None)
    return min([*rows, told or rows[0]]) if rows else None


def _outermost(modules: list[str], others: set[str]) -> list[str]:
    """Returns the fewest modules that hold the given ones and nothing of the others."""
    found: list[str] = []
    for module in modules:
        while (parent := module.rpartition(".")[0]) and not any(name.startswith(f"{parent}.") for name in others):
            module = parent
        if module not in found:
            found.append(module)
    return found
