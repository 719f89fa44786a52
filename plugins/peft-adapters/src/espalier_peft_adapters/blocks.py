"""The linear layers of a transformer block, told apart by name and shape: BERT- and Llama-like models."""

from __future__ import annotations

from dataclasses import dataclass

from espalier_sdk import Blueprint, ParameterInfo, SpecError


@dataclass(frozen=True, slots=True)
class Block:
    """The weights of one block's linear layers, in the order in which the model has them."""

    depth: int
    width: int
    attention: tuple[ParameterInfo, ...]
    feed_forward: tuple[ParameterInfo, ...]

    @property
    def attention_out(self) -> str:
        """Returns the name of the layer that ends attention."""
        return module_of(self.attention[-1])

    @property
    def feed_forward_in(self) -> str:
        """Returns the name of a layer that reads what the feed-forward part reads."""
        return module_of(self.feed_forward[0])

    @property
    def feed_forward_out(self) -> str:
        """Returns the name of the layer that ends the feed-forward part."""
        return module_of(self.feed_forward[-1])


def module_of(parameter: ParameterInfo) -> str:
    """Returns the name of the module that a weight or bias belongs to."""
    return parameter.name.rpartition(".")[0]


def read_blocks(blueprint: Blueprint) -> list[Block]:
    """Returns the blocks from the first; SpecError where one is not attention and then a feed-forward part."""
    found = [_read_block(blueprint, depth) for depth in range(1, blueprint.blocks + 1)]
    if not found:
        raise SpecError(
            "the base has no numbered blocks: its architecture is not known here",
            field="peft",
            accepted="BERT- and Llama-like bases",
            remedy="choose another base, or the strategy full-finetune",
        )
    return found


def _read_block(blueprint: Blueprint, depth: int) -> Block:
    linear = [one for one in blueprint.parameters if one.depth == depth and one.role == "block" and len(one.shape) == 2]
    attention = tuple(one for one in linear if "attention" in one.name.lower() or "attn" in one.name.lower())
    feed_forward = tuple(one for one in linear if one not in attention)
    # Two layers, or three with a gate; more are experts. GPT-2 keeps its weights transposed: its widths differ.
    if not attention or len(feed_forward) not in (2, 3):
        raise _unknown(depth)
    width = attention[-1].shape[0]
    if feed_forward[0].shape[1] != width or feed_forward[-1].shape[0] != width:
        raise _unknown(depth)
    return Block(depth, width, attention, feed_forward)


def _unknown(depth: int) -> SpecError:
    return SpecError(
        f"block {depth} of the base is not attention and a feed-forward part of plain linear layers",
        field="peft",
        accepted="BERT- and Llama-like bases",
        remedy="use lora, which needs linear layers only",
    )
