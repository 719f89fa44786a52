"""The parts of a transformer's blocks: attention heads, hidden units, linear layers. Knows no family by name.

They are found by what a blueprint says of the weights, and by the order in which layers run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

from espalier_sdk import Blueprint, DataError, Head, clean_name

if TYPE_CHECKING:
    import torch

Kind = Literal["heads", "units"]


@dataclass(frozen=True, slots=True)
class Block:
    """The parts of one block: itself, its linear layers by name, and the two whose inputs are heads and units."""

    whole: torch.nn.Module
    linear: Mapping[str, torch.nn.Module]
    heads: torch.nn.Module
    units: torch.nn.Module

    def out(self, kind: Kind) -> torch.nn.Module:
        """Returns the layer that reads what the heads, or the hidden units, put out."""
        return self.heads if kind == "heads" else self.units


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A model whose blocks are known."""

    model: torch.nn.Module
    head: Head
    blocks: tuple[Block, ...]
    heads: int  # per block


def dissect(model: torch.nn.Module, blueprint: Blueprint, inputs: Mapping[str, torch.Tensor]) -> Anatomy:
    """Finds the parts of a model by running it once; DataError where its blocks are built in another way.

    In each block, the last linear layer of the attention to run reads the heads, and the last one of all others reads
    the hidden units of the feed-forward part. Both write into the stream between blocks, so they are as wide.
    """
    depths = {
        one.name.removesuffix(".weight"): one.depth
        for one in blueprint.parameters
        if one.role == "block" and 0 < one.depth <= blueprint.blocks and len(one.shape) == 2
    }
    modules: dict[str, torch.nn.Module] = {}
    for name, module in model.named_modules():
        modules.setdefault(clean_name(name), module)  # the outer one, where a method wraps another
    ran = _order(model, {name: modules[name] for name in depths if name in modules}, inputs)
    config: Any = model.config
    heads, width = (int(getattr(config, name, 0) or 0) for name in ("num_attention_heads", "hidden_size"))
    blocks = []
    for depth in range(1, blueprint.blocks + 1):
        widths = {name: wide for name, wide in ran if depths[name] == depth}
        own = [name for name, _ in ran if depths[name] == depth]
        attention = [name for name in own if _is_attention(name)]
        others = [name for name in own if not _is_attention(name)]
        whole = modules.get(_shared(own))
        if not attention or not others or whole is None or len(set(own)) < len(own):
            raise unread(model, f"block {depth} has no attention and feed-forward part that each run once")
        if not widths[attention[-1]] == widths[others[-1]] == width:
            raise unread(model, f"{attention[-1]} or {others[-1]} does not end its part of block {depth}")
        blocks.append(Block(whole, {name: modules[name] for name in own}, modules[attention[-1]], modules[others[-1]]))
    if not blocks or not heads:
        raise unread(model, "it has no blocks with attention heads")
    return Anatomy(model, blueprint.head, tuple(blocks), heads)


def blocks_of(model: torch.nn.Module, blueprint: Blueprint) -> list[torch.nn.Module]:
    """Returns the modules that hold a block each, as the blueprint names their weights, the first first."""
    modules = {clean_name(name): module for name, module in model.named_modules()}
    names: dict[int, list[str]] = {}
    for one in blueprint.parameters:
        if 0 < one.depth <= blueprint.blocks:
            names.setdefault(one.depth, []).append(one.name)
    return [modules[_shared(own)] for _, own in sorted(names.items())]


def unread(model: torch.nn.Module, why: str) -> DataError:
    """Returns the error for a model whose blocks are not as they are looked for."""
    config: Any = model.config
    return DataError(
        f"the blocks of {config.model_type} cannot be read: {why}",
        code="unread_model",
        field="MODEL",
        accepted="transformer blocks of one attention and one feed-forward part, such as bert, llama and gpt2 have",
    )


@contextmanager
def hooked(handles: Sequence[Any]) -> Iterator[None]:
    """Takes hooks away again."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _order(
    model: torch.nn.Module, modules: Mapping[str, torch.nn.Module], inputs: Mapping[str, torch.Tensor]
) -> list[tuple[str, int]]:
    """Returns the names of modules in the order in which they run, with the width of what they give."""
    import torch

    ran: list[tuple[str, int]] = []

    def note(name: str) -> Callable[..., None]:
        def noted(_module: Any, _given: Any, output: Any) -> None:
            ran.append((name, output.shape[-1] if isinstance(output, torch.Tensor) else 0))

        return noted

    handles = [module.register_forward_hook(note(name)) for name, module in modules.items()]
    with hooked(handles), torch.no_grad():
        model(**inputs)
    return ran


def _is_attention(name: str) -> bool:
    low = name.lower()
    return "attention" in low or "attn" in low


def _shared(names: Sequence[str]) -> str:
    """Returns the innermost module that holds all of these."""
    levels = zip(*(name.split(".") for name in names), strict=False)
    return ".".join(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))
