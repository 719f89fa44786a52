"""The memory that a training will need, counted on a model without weights: nothing is computed.

Activations are the tensors that autograd keeps for the backward pass of one micro-batch, counted in torch's fake mode,
in which operations work out shapes alone. Weights are float32, or a frozen base's as they are stored, or in four bits;
AdamW keeps two moments for each trained one (Kingma and Ba 2015), its start is kept to tell how far it moved, and
gradients stand beside the moments when the activations are gone. Knows nothing about Ray or specs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from espalier_sdk import Blueprint, Placement, clean_name, quantisation
from espalier_sdk.fourbit import WEIGHT_BYTES, four_bit_layers
from espalier_sdk.heads import blank_batch, build_model, freeze_in_bfloat16

from espalier_training.rules import TRACED_WEIGHTS

if TYPE_CHECKING:
    import torch
    from espalier_sdk import Head
    from espalier_sdk.protocols import ModelStrategy, PeftMethod

# What Python, Ray, torch and transformers take in a worker on a CPU before there is a model, 1000 MiB, and what kernels
# keep for the widths of batches that they met.
PROCESS_BYTES = 1080 * 2**20
# What the C library's heap takes for a byte of activations: blocks that batches of one width leave fit no other's.
# Measured on steps of 120 to 256 tokens; memory mapped block by block has none of it, and takes 1.4 times as long.
_HEAP = 1.7
_FLOAT = 4


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker has in memory at once."""

    rows: int  # sequences of a pass
    tokens: int
    dtype: str
    gradient_checkpointing: bool = False
    zero_stage: int = 0
    workers: int = 1
    gpu: bool = False
    loss_bytes: Callable[..., int] | None = None  # of a learner whose loss never has all of a language model's logits
    beside: int = 0  # bytes of frozen models that stand beside


def footprint(blueprint: Blueprint, strategy: ModelStrategy, peft: PeftMethod | None, load: Load) -> int:
    """Returns the bytes of weights, optimizer, gradients and activations of one worker at its fullest moment.

    On a CPU that is what the process takes for them, its heap's gaps included.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    model, quantised = _model(blueprint, strategy, peft, load)
    with FakeTensorMode():
        _put_on_cpu(model)
        if load.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        kept = activations(model, blueprint.head, load)
    loss = 0
    if load.loss_bytes:
        words = model.config.get_text_config().vocab_size
        loss = load.loss_bytes(load.rows * load.tokens, words, gpu=load.gpu)
    counts = {parameter: parameter.numel() for parameter in model.parameters()}
    trained = sum(n for one, n in counts.items() if one.requires_grad)
    parts = [load.workers if load.zero_stage >= stage else 1 for stage in (3, 1, 2)]  # weights, moments, gradients
    moments, gradients = 2 * _FLOAT * trained, _FLOAT * trained
    start = _FLOAT * trained if trained <= TRACED_WEIGHTS and not (load.gpu and load.zero_stage) else 0
    weights = sum(one.nbytes for one in counts) - _FLOAT * sum(quantised) + round(WEIGHT_BYTES * sum(quantised))
    whole = _FLOAT * max(quantised, default=0)  # one layer at a time, while it is computed
    held = weights // parts[0] + moments // parts[1] + start + load.beside
    return held + max((kept if load.gpu else round(_HEAP * kept)) + loss, gradients // parts[2]) + whole


def activations(model: torch.nn.Module, head: Head, load: Load) -> int:
    """Returns the bytes that a training pass of the model keeps for its backward pass, its own weights left out."""
    import torch

    kept: dict[int, int] = {}
    storages = []  # kept alive: an address would be given away again

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in kept:
            kept[id(storage)] = storage.nbytes()
            storages.append(storage)
        return tensor

    own = [parameter.untyped_storage() for parameter in model.parameters()]
    bfloat16 = torch.autocast("cpu", dtype=torch.bfloat16, enabled=load.dtype == "bfloat16")
    dropout = _bits_of_dropout() if load.gpu else nullcontext()
    batch = blank_batch(head, rows=load.rows, tokens=load.tokens)
    if head.kind == "causal-lm" and load.loss_bytes:
        batch |= {"labels": None, "logits_to_keep": 1}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), bfloat16, dropout, _known_draws():
        model.train()(**batch)
    return sum(kept.values()) - sum(kept.get(id(storage), 0) for storage in own)


@contextmanager
def _bits_of_dropout() -> Iterator[None]:
    """Keeps of a dropout which values it let through, a byte each, as on GPUs; on a CPU it keeps them as numbers."""
    import torch
    from torch.nn import functional

    def dropout(given: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        return torch.native_dropout(given, p, training)[0] if training and p else given

    usual = functional.dropout
    functional.dropout = dropout
    try:
        yield
    finally:
        functional.dropout = usual


@contextmanager
def _known_draws() -> Iterator[None]:
    """Lets single numbers that are drawn be 1: whether a module takes part in a step may hang on one (LyCORIS)."""
    import torch

    usual = torch.rand

    def rand(*size: Any, **options: Any) -> torch.Tensor:
        return torch.tensor([1.0]) if size == (1,) else usual(*size, **options)

    torch.rand = rand
    try:
        yield
    finally:
        torch.rand = usual


def _model(
    blueprint: Blueprint, strategy: ModelStrategy, peft: PeftMethod | None, load: Load
) -> tuple[torch.nn.Module, list[int]]:
    """Returns the model without weights, and how many weights each layer has that is kept in four bits."""
    import torch
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[str(blueprint.config["model_type"])].from_dict(dict(blueprint.config))
    infos = blueprint.parameters
    with torch.device("meta"):
        model = build_model(config, blueprint.head).float()
        layers = () if quantisation(strategy) == "none" else four_bit_layers(model)
        quantised = [model.get_submodule(name).weight.numel() for name in layers]
        if peft:
            if blueprint.config.get("dtype") == load.dtype == "bfloat16" and not quantised:
                freeze_in_bfloat16(model, blueprint.new_modules)
            model = peft.inject(model, blueprint=blueprint, placement=Placement(), calibration=())
            infos = (*infos, *peft.parameters(blueprint))
    trained = {one.name for one in infos if strategy.trainable(one)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(clean_name(name) in trained)
    return model, quantised


def _put_on_cpu(model: torch.nn.Module) -> None:
    """Replaces what lies on the meta device, in fake mode: there attention chooses another way than on a CPU."""
    import torch

    made: dict[int, torch.Tensor] = {}  # what is shared stays shared
    for module in model.modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                    given = isinstance(tensor, torch.nn.Parameter)
                    made[id(tensor)] = torch.nn.Parameter(fake, tensor.requires_grad) if given else fake
                own[name] = made[id(tensor)]  # type: ignore[assignment]
