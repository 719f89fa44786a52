"""From scratch: an own tokenizer, trained on the train split, and an own model of chosen family, depth and width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from espalier_sdk import Blueprint, DataError, Head, HeadKind, ParameterInfo, Placement, PluginConfig
from espalier_sdk.heads import build_model, with_head
from pydantic import Field, model_validator

from espalier_models.families import DECODERS, ROTARY, Family, heads_of
from espalier_models.tokenizers import (
    DECODER_NAMES,
    ENCODER_NAMES,
    Algorithm,
    train_byte_level,
    train_tokenizer,
    untaught_tokenizer,
)

if TYPE_CHECKING:
    import torch

_BYTE_LEVEL_LEAST = 262  # 256 bytes and the special tokens of a decoder


class FromScratchConfig(PluginConfig):
    """Family and sizes of the model and of its tokenizer."""

    family: Family = Field(
        default="bert",
        description="bert, roberta, modernbert: encoders; llama, qwen3, gpt2: decoders, which write text.",
    )
    layers: int = Field(default=2, ge=1, le=96, description="Transformer blocks.")
    hidden_size: int = Field(default=128, ge=8, le=16384, description="Width of the residual stream.")
    heads: int | None = Field(default=None, ge=1, description="Attention heads; default: one per 64 of the width.")
    key_value_heads: int | None = Field(
        default=None, ge=1, description="Heads of keys and values (llama, qwen3); default: as many as heads."
    )
    feed_forward_size: int | None = Field(
        default=None, ge=8, description="Default: four times the width; llama, qwen3: eight thirds of it."
    )
    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Dropout of embeddings, attention and feed-forward (llama, qwen3: of attention); "
        "default: 0.1 for encoders, 0 for decoders.",
    )
    max_positions: int = Field(default=512, ge=8, description="Longest input in tokens; at least training.max_tokens.")
    tied_embeddings: bool = Field(default=True, description="A language model's output shares the input's embeddings.")
    tokenizer: Algorithm | None = Field(
        default=None, description="Algorithm; default: wordpiece for encoders; decoders take bpe over bytes alone."
    )
    vocabulary_size: int = Field(
        default=8000, ge=64, le=500_000, description="Tokens at most; the alphabet is always in."
    )
    lowercase: bool | None = Field(
        default=None,
        description="Fold case (encoders: and strip accents) before tokenising; default: encoders yes, decoders no.",
    )

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.hidden_size % self.head_count:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of heads {self.head_count}")
        if self.key_value_heads and self.family not in ROTARY:
            raise ValueError(
                f"key_value_heads: {self.family} has none of their own; remove it, or choose llama or qwen3"
            )
        if self.key_value_heads and self.head_count % self.key_value_heads:
            raise ValueError(f"heads {self.head_count} is no multiple of key_value_heads {self.key_value_heads}")
        if self.family in ROTARY | {"modernbert"} and self.hidden_size // self.head_count % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} / heads {self.head_count} is odd: "
                f"{self.family} turns pairs of a head's width"
            )
        return self

    @model_validator(mode="after")
    def _vocabulary(self) -> Self:
        if self.family in DECODERS and self.tokenizer not in (None, "bpe"):
            raise ValueError(f"tokenizer {self.tokenizer} cannot write every text back: {self.family} takes bpe")
        if self.family in DECODERS and self.vocabulary_size < _BYTE_LEVEL_LEAST:
            raise ValueError(
                f"vocabulary_size {self.vocabulary_size}: a decoder needs at least {_BYTE_LEVEL_LEAST}, "
                "256 bytes and its special tokens"
            )
        return self

    @property
    def head_count(self) -> int:
        """Returns the number of attention heads."""
        if self.heads:
            return self.heads
        return max(1, self.hidden_size // 64) if self.hidden_size % 64 == 0 else 1

    @property
    def feed_forward_width(self) -> int:
        """Returns the inner width; with three matrices (SwiGLU, Shazeer 2020) two thirds of it weigh the same."""
        if self.feed_forward_size:
            return self.feed_forward_size
        return -(-8 * self.hidden_size // 24) * 8 if self.family in ROTARY else 4 * self.hidden_size

    @property
    def dropout_share(self) -> float:
        """Returns the dropout."""
        usual = 0.0 if self.family in DECODERS else 0.1
        return usual if self.dropout is None else self.dropout


class FromScratch:
    """Builds a transformer of a chosen family with random weights, and its tokenizer."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[FromScratchConfig]] = FromScratchConfig
    base: ClassVar[Literal["required", "forbidden"]] = "forbidden"
    peft: ClassVar[Literal["required", "forbidden"]] = "forbidden"
    learning_rate: ClassVar[float] = 1e-3

    def __init__(self, config: FromScratchConfig) -> None:
        self._config = config

    @property
    def heads(self) -> frozenset[HeadKind]:
        """Returns the heads that the family can have."""
        return heads_of(self._config.family)

    @property
    def _special(self) -> Mapping[str, str]:
        return DECODER_NAMES if self._config.family in DECODERS else ENCODER_NAMES

    def tokenizer(self, texts: Iterable[str], *, base: Path | None, out: Path) -> None:
        """Trains a tokenizer on texts and writes it as a Hugging Face folder; equal texts give equal bytes.

        Raises DataError where no text has a character to make a vocabulary of.
        """
        config, size = self._config, self._config.vocabulary_size
        if config.family in DECODERS:
            trained = train_byte_level(texts, size=size, lowercase=bool(config.lowercase))
        else:
            trained = train_tokenizer(
                texts, algorithm=config.tokenizer or "wordpiece", size=size, lowercase=config.lowercase is not False
            )
        self._named(trained).save_pretrained(out)

    def _named(self, tokens: Any) -> Any:
        """Returns a tokenizer that knows its special tokens by their roles, as transformers opens one."""
        from transformers import PreTrainedTokenizerFast

        make: Any = PreTrainedTokenizerFast
        return make(
            tokenizer_object=tokens,
            model_max_length=self._config.max_positions,
            model_input_names=["input_ids", "attention_mask"],
            clean_up_tokenization_spaces=False,
            **self._special,
        )

    def blueprint(self, head: Head, *, tokenizer: Path | None, base: Path | None) -> Blueprint:
        """Returns the model's parameters; DataError where the head is one that the family cannot have.

        Before there is a tokenizer the vocabulary has `vocabulary_size` tokens.
        """
        from transformers import AutoTokenizer

        from espalier_models.blueprints import blueprint_of
        from espalier_models.families import configuration

        if head.kind not in self.heads:
            raise DataError(
                f"{self._config.family} has no head for {head.kind}",
                field="strategy.config.family",
                accepted=", ".join(sorted(self.heads)),
                remedy="choose a decoder (llama, qwen3, gpt2) for causal-lm, an encoder for masked-lm",
            )
        if tokenizer is not None:
            tokens = AutoTokenizer.from_pretrained(tokenizer)
        else:
            tokens = self._named(untaught_tokenizer(self._special.values(), size=self._config.vocabulary_size))
        return blueprint_of(with_head(configuration(self._config, tokens), head), head, base=None)

    def build(self, blueprint: Blueprint, *, base: Path | None, placement: Placement) -> torch.nn.Module:
        """Returns the model with random weights; the caller seeds torch."""
        from transformers import CONFIG_MAPPING

        from espalier_models.blueprints import quiet

        quiet()
        config = CONFIG_MAPPING[str(blueprint.config["model_type"])].from_dict(dict(blueprint.config))
        return build_model(config, blueprint.head)

    def trainable(self, parameter: ParameterInfo) -> bool:
        """Tells that every parameter is trained."""
        return True
