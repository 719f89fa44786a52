"""Tiny models for the kits, made from a configuration on the CPU: nothing is downloaded.

The blueprints are made from `named_parameters`, so that no kit depends on a strategy plugin.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from espalier_sdk.columns import SIDE
from espalier_sdk.heads import SIDE_COLUMNS, SIDE_LAYERS, build_model, with_head
from espalier_sdk.model import Blueprint, Head, HeadKind, ParameterInfo, Role

if TYPE_CHECKING:
    import torch

Family = Literal["bert", "llama", "gpt2"]
VOCABULARY = 64
BLOCKS = 2
WORDS = tuple(f"word{number}" for number in range(VOCABULARY - 5))

_NEW: dict[tuple[Family, HeadKind], tuple[str, ...]] = {
    ("bert", "sequence-classification"): ("classifier",),
    ("bert", "token-classification"): ("classifier",),
    ("bert", "question-answering"): ("qa_outputs",),
    ("llama", "sequence-classification"): ("score",),
    ("gpt2", "sequence-classification"): ("score",),
}


@dataclass(frozen=True, slots=True)
class Tiny:
    """A tiny model with its blueprint."""

    model: torch.nn.Module
    blueprint: Blueprint


def tiny(family: Family, head: Head, *, seed: int = 0) -> Tiny:
    """Returns a model of two blocks of width 32 with this head; the head is what a base would lack."""
    import torch
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(seed)
    config = with_head(tiny_config(family), head)
    model = build_model(config, head)
    new = SIDE_LAYERS if head.side_width else _NEW.get((family, head.kind), ())
    turned = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}
    parameters = tuple(
        replace(_info(name, tuple(value.shape), new), transposed=name in turned)
        for name, value in model.named_parameters()
    )
    return Tiny(model, Blueprint(config.to_diff_dict(), head, BLOCKS, parameters, new))


def tiny_config(family: Family) -> Any:
    """Returns the transformers configuration of a tiny encoder (bert) or decoder (llama, gpt2)."""
    from transformers import BertConfig, GPT2Config, LlamaConfig

    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    if family == "bert":
        return BertConfig(**common)
    if family == "gpt2":
        common["n_inner"] = common.pop("intermediate_size")
        return GPT2Config(**common, bos_token_id=2, eos_token_id=3)
    return LlamaConfig(**common, num_key_value_heads=2, bos_token_id=2, eos_token_id=3)


def write_tokenizer(folder: Path) -> None:
    """Writes a tokenizer of whole words, WORDS and the special tokens, as a Hugging Face folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    vocabulary = {word: place for place, word in enumerate((*special, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    make: Any = PreTrainedTokenizerFast
    make(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def write_base(folder: Path, family: Family = "bert") -> None:
    """Writes a tiny pre-trained model without a head, and its tokenizer, as a Hugging Face folder."""
    import torch
    from transformers import AutoModel

    torch.manual_seed(7)
    make: Any = AutoModel.from_config
    make(tiny_config(family)).save_pretrained(folder)
    write_tokenizer(folder)


def batch(lengths: Sequence[int], *, seed: int = 0, left: bool = False, side_width: int = 0) -> dict[str, torch.Tensor]:
    """Returns padded `input_ids` and `attention_mask` of random tokens, one row per length, and `side` where asked."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        span = slice(ids.shape[1] - length, None) if left else slice(0, length)
        ids[row, span] = torch.randint(5, VOCABULARY, (length,), generator=generator)
        mask[row, span] = 1
    side = {SIDE: torch.randn(len(lengths), side_width, generator=generator)} if side_width else {}
    return {"input_ids": ids, "attention_mask": mask, **side}


@contextmanager
def one_thread() -> Iterator[None]:
    """Holds torch to one thread: for tiny models, waiting for threads costs ten times the work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def no_network() -> Iterator[None]:
    """Refuses every connection to an address while it holds."""

    def refuse(connection: socket.socket, address: Any) -> None:
        raise AssertionError(f"it opens a connection to {address}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the bytes of every file below a folder, by its path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".joblib")


def check_folder(name: str, folder: Path, *places: Path) -> None:
    """Checks that a folder holds no pickle, and that no file names a folder of this machine."""
    found = contents(folder)
    assert found, f"{name}: nothing was written"
    pickles = [path for path in found if path.endswith(PICKLES)]
    assert not pickles, f"{name}: writes {', '.join(pickles)}, must be safetensors"
    for path, data in found.items():
        for place in places:
            assert str(place).encode() not in data, f"{name}: {path} holds the absolute path {place}"


def _info(name: str, shape: tuple[int, ...], new: tuple[str, ...]) -> ParameterInfo:
    block = re.search(r"\.(?:layers?|h)\.(\d+)\.", name)
    if name.startswith(tuple(f"{module}." for module in new)):
        return ParameterInfo(name, shape, BLOCKS + 1, "side" if name.startswith(SIDE_COLUMNS) else "head")
    norm, embedding = "norm" in name.lower() or ".ln_" in name, "embed" in name or ".wte." in name or ".wpe." in name
    if block:
        return ParameterInfo(name, shape, int(block[1]) + 1, "norm" if norm else "block")
    role: Role = "norm" if norm else "embedding" if embedding else "block"
    return ParameterInfo(name, shape, 0 if embedding else BLOCKS + 1, role)
