"""Families of transformers that can be built from random weights: which heads each has, and its configuration.

Knows transformers' configurations by name; imports them late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from espalier_sdk import HeadKind

if TYPE_CHECKING:
    from transformers import PretrainedConfig
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from espalier_models.scratch import FromScratchConfig

Family = Literal["bert", "roberta", "modernbert", "llama", "qwen3", "gpt2"]
DECODERS = frozenset({"llama", "qwen3", "gpt2"})
ROTARY = frozenset({"llama", "qwen3"})  # decoders that turn pairs of a head's width, and may share key-value heads
_SHARED: frozenset[HeadKind] = frozenset({"sequence-classification", "token-classification", "question-answering"})


def heads_of(family: Family) -> frozenset[HeadKind]:
    """Returns the heads that transformers has for a family."""
    own: HeadKind = "causal-lm" if family in DECODERS else "masked-lm"
    return _SHARED | {own}


def configuration(sizes: FromScratchConfig, tokens: Tokenizer) -> PretrainedConfig:
    """Returns the transformers configuration of a family with these sizes and this vocabulary."""
    from transformers import AutoConfig

    make: Any = AutoConfig.for_model
    built: PretrainedConfig = make(
        sizes.family,
        vocab_size=len(tokens),
        pad_token_id=tokens.pad_token_id,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        tie_word_embeddings=sizes.tied_embeddings,
        **_own(sizes, tokens),
    )
    return built


def _own(sizes: FromScratchConfig, tokens: Tokenizer) -> dict[str, Any]:
    dropout = sizes.dropout_share
    if sizes.family == "gpt2":  # Radford et al. 2019
        return {
            "n_embd": sizes.hidden_size,
            "n_layer": sizes.layers,
            "n_head": sizes.head_count,
            "n_inner": sizes.feed_forward_width,
            "n_positions": sizes.max_positions,
            "embd_pdrop": dropout,
            "attn_pdrop": dropout,
            "resid_pdrop": dropout,
        }
    common = {
        "hidden_size": sizes.hidden_size,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.head_count,
        "intermediate_size": sizes.feed_forward_width,
        "max_position_embeddings": sizes.max_positions,
    }
    if sizes.family in ROTARY:  # Touvron et al. 2023; Yang et al. 2025
        return common | {
            "num_key_value_heads": sizes.key_value_heads or sizes.head_count,
            "head_dim": sizes.hidden_size // sizes.head_count,
            "attention_dropout": dropout,
        }
    if sizes.family == "modernbert":  # Warner et al. 2024
        # The mean of all tokens is read, as its published models do: from few texts a first token learns little.
        marks = {"cls_token_id": tokens.cls_token_id, "sep_token_id": tokens.sep_token_id, "classifier_pooling": "mean"}
        rates = dict.fromkeys(("embedding_dropout", "mlp_dropout", "attention_dropout", "classifier_dropout"), dropout)
        return common | marks | rates
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    if sizes.family == "roberta":  # Liu et al. 2019; positions are counted from the one after the padding's number
        rates |= {"max_position_embeddings": sizes.max_positions + (tokens.pad_token_id or 0) + 1, "type_vocab_size": 1}
    return common | rates
