"""Starting from a base: full fine-tuning trains every weight, `peft` only what a PEFT method adds and what is new."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from espalier_sdk import Blueprint, DataError, Head, ParameterInfo, Placement, PluginConfig, Quantise
from espalier_sdk.fourbit import load_in_four_bits
from espalier_sdk.heads import freeze_in_bfloat16, load_model, with_head
from pydantic import Field

if TYPE_CHECKING:
    import torch

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
)


class FullFinetuneConfig(PluginConfig):
    """Full fine-tuning has no options of its own: rates and controls stand with the candidate."""


class PeftConfig(PluginConfig):
    """How the frozen base is kept; the method stands under `peft`."""

    quantise: Literal["none", "nf4"] = Field(
        default="none",
        description="nf4: the linear layers of the base's blocks in four bits (QLoRA, Dettmers et al. 2023); needs "
        "bitsandbytes.",
    )


class FullFinetune:
    """Trains every weight of a base."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[FullFinetuneConfig]] = FullFinetuneConfig
    base: ClassVar[Literal["required", "forbidden"]] = "required"
    peft: ClassVar[Literal["required", "forbidden"]] = "forbidden"
    learning_rate: ClassVar[float] = 5e-5

    def __init__(self, config: FullFinetuneConfig) -> None:
        self._config = config

    def tokenizer(self, texts: Iterable[str], *, base: Path | None, out: Path) -> None:
        """Copies the base's tokenizer."""
        copy_tokenizer(base, out)

    def blueprint(self, head: Head, *, tokenizer: Path | None, base: Path | None) -> Blueprint:
        """Returns the parameters of the base with this head."""
        return base_blueprint(head, base)

    def build(self, blueprint: Blueprint, *, base: Path | None, placement: Placement) -> torch.nn.Module:
        """Opens the base's weights; what the base lacks is random, so the caller seeds torch."""
        return open_base(blueprint, base, placement)

    def trainable(self, parameter: ParameterInfo) -> bool:
        """Tells that every parameter is trained."""
        return True


class Peft:
    """Keeps the base as it is and trains what a PEFT method adds, and the modules that the base lacks."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[PeftConfig]] = PeftConfig
    base: ClassVar[Literal["required", "forbidden"]] = "required"
    peft: ClassVar[Literal["required", "forbidden"]] = "required"
    learning_rate: ClassVar[float] = 1e-3

    def __init__(self, config: PeftConfig) -> None:
        self.quantise: Quantise = config.quantise

    def tokenizer(self, texts: Iterable[str], *, base: Path | None, out: Path) -> None:
        """Copies the base's tokenizer."""
        copy_tokenizer(base, out)

    def blueprint(self, head: Head, *, tokenizer: Path | None, base: Path | None) -> Blueprint:
        """Returns the parameters of the base with this head, before a PEFT method adds its own."""
        return base_blueprint(head, base)

    def build(self, blueprint: Blueprint, *, base: Path | None, placement: Placement) -> torch.nn.Module:
        """Opens the base's weights; what the base lacks is random, so the caller seeds torch."""
        return open_base(blueprint, base, placement, frozen=True)

    def trainable(self, parameter: ParameterInfo) -> bool:
        """Tells whether the parameter is new: an adapter's, a head's, or one for side columns."""
        return parameter.role in ("adapter", "head", "side")


def copy_tokenizer(base: Path | None, out: Path) -> None:
    """Copies the tokenizer files of a Hugging Face folder; DataError where it has none."""
    assert base is not None, "compose() refuses these strategies without a base"
    out.mkdir(parents=True, exist_ok=True)
    found = [base / name for name in _TOKENIZER_FILES if (base / name).is_file()]
    if not found:
        raise DataError("has no tokenizer", file=str(base), remedy="put tokenizer.json beside the weights")
    for path in found:
        shutil.copyfile(path, out / path.name)


def base_blueprint(head: Head, base: Path | None) -> Blueprint:
    """Returns the blueprint of a base with a head."""
    from transformers import AutoConfig

    from espalier_models.blueprints import blueprint_of

    assert base is not None, "compose() refuses these strategies without a base"
    config = AutoConfig.from_pretrained(base)
    _require_direction(config, head, base)
    return blueprint_of(with_head(config, head), head, base=base)


def _require_direction(config: Any, head: Head, base: Path) -> None:
    """Refuses to write text with an encoder: transformers would build it, and each token would see what comes."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if head.kind == "causal-lm" and encoder:
        raise DataError(
            f"{config.model_type} is an encoder, the task writes text",
            field="base",
            file=str(base),
            remedy="choose a base that is a decoder, such as a llama, qwen3 or gpt2",
        )


def open_base(
    blueprint: Blueprint, base: Path | None, placement: Placement, *, frozen: bool = False
) -> torch.nn.Module:
    """Opens safetensors weights with the blueprint's head, in float32: mixed precision is the trainer's part.

    A frozen base that is stored in bfloat16 stays so where training computes in it: half the memory, nothing lost, and
    no copy made at each pass. Under `quantise: nf4` the linear layers of the blocks are in four bits.
    """
    import torch

    from espalier_models.blueprints import quiet

    assert base is not None, "compose() refuses these strategies without a base"
    quiet()
    # Another task's head may have another size: the blueprint calls it new.
    if placement.quantise == "nf4":
        return load_in_four_bits(base, blueprint.head, compute=placement.dtype, ignore_mismatched_sizes=True)
    model = load_model(base, blueprint.head, ignore_mismatched_sizes=True)
    if frozen and model.dtype == torch.bfloat16 and placement.dtype == "bfloat16":
        return freeze_in_bfloat16(model, blueprint.new_modules)
    return model.float()
