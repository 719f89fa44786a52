"""The shapes in which strategies, PEFT methods, controls and engines speak about a model. No tensors, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, JsonValue

from espalier_sdk.choice import PluginConfig

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from espalier_sdk.protocols import PeftMethod

HeadKind = Literal["causal-lm", "masked-lm", "sequence-classification", "token-classification", "question-answering"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
BESIDE = ("number", "category")  # uses of columns that stand beside the text
READ = ("text", "tokens", "messages", *BESIDE)  # uses of columns that a model reads; the others are what it should say
ZeroStage = Literal[0, 1, 2, 3]
Quantise = Literal["none", "nf4"]
Role = Literal["embedding", "block", "norm", "head", "side", "adapter"]


class Columns(PluginConfig):
    """The columns that a task or a learner reads, each with a word on its use.

    `text` is read by the model; `label` and `value` are what is answered, a class or a number; `number` and `category`
    are side columns, as a question has them; `vector` is what a transform makes of those. What is required must be
    in the data before any transform.
    """

    required: dict[str, str]
    optional: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """One parameter of a model, as controls and plans see it."""

    name: str  # without "module.", "base_model.model.", ".default"
    shape: tuple[int, ...]  # full shape, also under ZeRO-3
    depth: int  # 0 embeddings, 1..blocks, blocks + 1 head and all that is new
    role: Role
    transposed: bool = False  # a linear layer's weight that is kept as (in, out), as GPT-2's

    @property
    def count(self) -> int:
        """Returns the number of weights."""
        total = 1
        for size in self.shape:
            total *= size
        return total


@dataclass(frozen=True, slots=True)
class Head:
    """What the model puts out."""

    kind: HeadKind
    outputs: int = 0
    side_width: int = 0
    problem: Literal["single-label", "multi-label", "regression"] | None = None


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A model without weights, made on the meta device."""

    config: Mapping[str, JsonValue]
    head: Head
    blocks: int
    parameters: tuple[ParameterInfo, ...]
    new_modules: tuple[str, ...]  # a task's head, what the base lacks: trained and saved whole under any PEFT method
    positions: int | None = None  # as many tokens as its table of positions has; None: no table, as with rotations


@dataclass(frozen=True, slots=True)
class Placement:
    """How a model lies on its hardware."""

    zero_stage: ZeroStage = 0
    workers: int = 1
    dtype: Literal["float32", "bfloat16"] = "float32"
    quantise: Quantise = "none"  # nf4: linear layers of the blocks in four bits
    adapter_dtype: Literal["float32", "model"] = "float32"
    gradient_checkpointing: bool = False  # activations are computed again in the backward pass


@dataclass(frozen=True, slots=True)
class Budget:
    """How many tokens an example may have, and on which side padding goes."""

    max_tokens: int
    padding_side: Literal["left", "right"] = "right"


@dataclass(frozen=True, slots=True)
class Rule:
    """What training may do to one parameter during one phase."""

    trainable: bool = True
    lr_scale: float = 1.0
    anchor: float = 0.0


@dataclass(frozen=True, slots=True)
class Phase:
    """A span of optimizer steps in which rules are constant; each phase is a new engine."""

    start: int
    stop: int
    rules: Mapping[str, Rule]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a learner gets to make its trainer's inputs from."""

    model: torch.nn.Module
    tokenizer: Tokenizer
    reference: torch.nn.Module | None = None
    auxiliaries: Mapping[str, tuple[torch.nn.Module, Tokenizer]] = field(default_factory=dict)  # opened merged
    max_tokens: int | None = None  # no batch may be wider; None: no wider than its longest example


@dataclass(frozen=True, slots=True)
class PeftTraits:
    """What a PEFT method can do, read before any weight is loaded."""

    zero_stages: frozenset[ZeroStage]
    heads: frozenset[HeadKind]
    identity_at_start: bool
    mergeable: bool
    mixes_in_batch: bool
    virtual_tokens: int = 0  # taken from Budget.max_tokens before encoding
    hides_padding: bool = False  # feeds inputs_embeds: a pooled decoder must pad left
    calibration_batches: int = 0
    gradient_checkpointing: bool = True  # trains where activations are computed again
    quantised: bool = False  # trains beside a base in four bits; merges after that was made whole again
    reference: Literal["disable", "copy"] = "disable"
    opens_with_peft: bool = False  # PeftModel.from_pretrained opens the saved folder on the base, without Espalier
    learning_rate: float | None = None  # the usual peak rate where a spec names none; default: the strategy's


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an engine needs to open a PEFT model on its base: the saved folder, and the method that reads it."""

    folder: Path
    method: PeftMethod
