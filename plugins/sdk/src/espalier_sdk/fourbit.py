"""A base in four bits: its blocks' linear layers are kept as NormalFloat, beside which an adapter is trained (QLoRA).

Dettmers et al. 2023: 64 weights share a scale, and 256 scales share theirs (double quantisation); a layer is computed
from its weights made whole for the moment. Through bitsandbytes, an extra; imports it, torch and transformers late.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from espalier_sdk.errors import SpecError
from espalier_sdk.heads import build_model, load_model, with_head

if TYPE_CHECKING:
    import torch

    from espalier_sdk.model import Head

_FIELD = "strategy.config.quantise"
# Half a byte; a byte for each 64 weights, and a float32 for each 256 of those.
WEIGHT_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)


def load_in_four_bits(
    folder: Path, head: Head, *, compute: Literal["float32", "bfloat16"] = "float32", **options: Any
) -> torch.nn.Module:
    """Opens a Hugging Face folder with this head, the linear layers of its blocks in four bits, all else in float32.

    `compute` is the precision of those layers' products. Raises SpecError where bitsandbytes is not installed, or no
    layer of the model can be so kept.
    """
    require_four_bits()
    import torch
    from transformers import BitsAndBytesConfig

    model = load_model(
        folder,
        head,
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, compute),
            llm_int8_skip_modules=[f"^{re.escape(name)}$" for name in _others(folder, head)],
        ),
        **options,
    )
    told: Any = model
    # Where this is set, TRL puts all trained weights into bfloat16, the head's too, whatever the training's precision.
    told.is_loaded_in_4bit = False
    for layer in _quantised(model):
        # In evaluation bitsandbytes would repack the weights for AVX512-BF16: scales are rounded, widths that are no
        # multiple of 64 fail, and the passes of training that follow give no gradient.
        layer.support_avx512bf16_for_cpu = False
    return model


def require_four_bits(field: str = _FIELD) -> None:
    """Raises SpecError at this field of a spec where bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise SpecError(
            "a base in four bits needs bitsandbytes, which is not installed here",
            field=field,
            given="nf4",
            remedy="install espalier-sdk[four-bits] (`make setup-four-bits` in a checkout), or use quantise: none",
        )


def dequantised(model: torch.nn.Module) -> torch.nn.Module:
    """Returns a model with the values of its four bits as float32 weights; one that has none as it is."""
    import torch

    if not find_spec("bitsandbytes") or not any(_quantised(model)):
        return model
    told: Any = model
    plain: torch.nn.Module = told.dequantize(dtype=torch.float32)
    return plain


def four_bit_layers(model: torch.nn.Module) -> tuple[str, ...]:
    """Returns the names of the layers that are kept in four bits: the linear ones of blocks, no head or embedding."""
    import torch

    blocks = tuple(f"{name}." for name, one in model.named_modules() if isinstance(one, torch.nn.ModuleList))
    return tuple(
        name for name, one in model.named_modules() if type(one) is torch.nn.Linear and name.startswith(blocks)
    )


def _others(folder: Path, head: Head) -> list[str]:
    """Returns the names of the layers that stay as they are, from a model without weights."""
    import torch
    from transformers import AutoConfig

    with torch.device("meta"):
        model = build_model(with_head(AutoConfig.from_pretrained(folder, local_files_only=True), head), head)
    layers = four_bit_layers(model)
    if not layers:
        raise SpecError(
            "the base has no linear layers in blocks to keep in four bits",
            field=_FIELD,
            accepted="none",
        )
    return [name for name, one in model.named_modules() if name not in layers and not any(one.children())]


def _quantised(model: torch.nn.Module) -> list[Any]:
    kind = import_module("bitsandbytes").nn.Linear4bit
    return [one for one in model.modules() if isinstance(one, kind)]
