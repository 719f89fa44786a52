"""From scratch: an own tokenizer, trained on the train split, and an own model of chosen depth and width."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from espalier_sdk import Blueprint, DataError, Head, ParameterInfo, Placement, PluginConfig
from espalier_sdk.heads import build_model, with_head
from pydantic import Field, model_validator

if TYPE_CHECKING:
    import torch


class FromScratchConfig(PluginConfig):
    """Sizes of the model and of its tokenizer."""

    layers: int = Field(default=2, ge=1, le=96, description="Transformer blocks.")
    hidden_size: int = Field(default=128, ge=8, le=16384, description="Width of the residual stream.")
    heads: int | None = Field(default=None, ge=1, description="Attention heads; default: one per 64 of the width.")
    feed_forward_size: int | None = Field(default=None, ge=8, description="Default: four times the width.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Dropout of embeddings, attention and feed-forward.")
    max_positions: int = Field(default=512, ge=8, description="Longest input in tokens; at least training.max_tokens.")
    tokenizer: Literal["wordpiece", "bpe"] = Field(default="wordpiece", description="Algorithm.")
    vocabulary_size: int = Field(
        default=8000, ge=64, le=500_000, description="Tokens at most; the alphabet is always in."
    )
    lowercase: bool = Field(default=True, description="Fold case and strip accents before tokenising.")

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.hidden_size % self.head_count:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of heads {self.head_count}")
        return self

    @property
    def head_count(self) -> int:
        """Returns the number of attention heads."""
        if self.heads:
            return self.heads
        return max(1, self.hidden_size // 64) if self.hidden_size % 64 == 0 else 1


class FromScratch:
    """Builds a BERT-like encoder with random weights (Devlin et al. 2019) and its tokenizer."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[FromScratchConfig]] = FromScratchConfig
    base: ClassVar[Literal["required", "forbidden"]] = "forbidden"
    peft: ClassVar[Literal["required", "forbidden"]] = "forbidden"
    learning_rate: ClassVar[float] = 1e-3

    def __init__(self, config: FromScratchConfig) -> None:
        self._config = config

    def tokenizer(self, texts: Iterable[str], *, base: Path | None, out: Path) -> None:
        """Trains a tokenizer on texts and writes it as a Hugging Face folder; equal texts give equal bytes."""
        from transformers import PreTrainedTokenizerFast

        from espalier_models.tokenizers import train_tokenizer

        config = self._config
        tokenizer = train_tokenizer(
            texts, algorithm=config.tokenizer, size=config.vocabulary_size, lowercase=config.lowercase
        )
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            model_max_length=config.max_positions,
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            mask_token="[MASK]",
            model_input_names=["input_ids", "attention_mask"],
        ).save_pretrained(out)

    def blueprint(self, head: Head, *, tokenizer: Path, base: Path | None) -> Blueprint:
        """Returns the model's parameters; DataError where the head is one that an encoder cannot have."""
        from transformers import AutoTokenizer, BertConfig

        from espalier_models.blueprints import blueprint_of

        if head.kind == "causal-lm":
            raise DataError("from-scratch builds encoders, the task needs a decoder", field="strategy")
        tokens = AutoTokenizer.from_pretrained(tokenizer)
        config = self._config
        built = BertConfig(
            vocab_size=len(tokens),
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.head_count,
            intermediate_size=config.feed_forward_size or 4 * config.hidden_size,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            max_position_embeddings=config.max_positions,
            pad_token_id=tokens.pad_token_id,
        )
        return blueprint_of(with_head(built, head), head, base=None)

    def build(self, blueprint: Blueprint, *, base: Path | None, placement: Placement) -> torch.nn.Module:
        """Returns the model with random weights; the caller seeds torch."""
        from transformers import BertConfig

        from espalier_models.blueprints import quiet

        quiet()
        return build_model(BertConfig.from_dict(dict(blueprint.config)), blueprint.head)

    def trainable(self, parameter: ParameterInfo) -> bool:
        """Tells that every parameter is trained."""
        return True
