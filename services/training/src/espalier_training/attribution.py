"""Which layers, heads, units and modules carry a model's decisions: gradient x activation, and what removing them does.

The relevance of a part is |sum over tokens of gradient x activation| of the decision's score, averaged over rows: the
first-order effect of setting it to zero (Molchanov et al. 2017; for heads Michel et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from espalier_sdk.columns import LABELS

from espalier_training.anatomy import Anatomy, Kind, hooked, unread
from espalier_training.decisions import decide

if TYPE_CHECKING:
    import torch

Batch = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class Module:
    """What one linear layer carries; blocks are counted from 1."""

    name: str
    layer: int
    relevance: float


@dataclass(frozen=True, slots=True)
class Relevance:
    """Shares of each kind, which sum to 1."""

    layers: np.ndarray  # (blocks,)
    heads: np.ndarray  # (blocks, heads)
    units: np.ndarray  # (blocks, hidden units of the feed-forward part)
    modules: tuple[Module, ...]

    def of(self, kind: Kind) -> np.ndarray:
        """Returns heads or units."""
        return self.heads if kind == "heads" else self.units


@dataclass(frozen=True, slots=True)
class Effect:
    """What removing parts does to decisions."""

    moved: float  # mean |change of the score|, in mean |score|
    kept: float | None  # share of the decisions that stay; None for numbers


def attribute(anatomy: Anatomy, batches: Sequence[Batch]) -> Relevance:
    """Returns how much each part carries the decisions, each kind as shares of its sum.

    A layer's activation is what its block adds to the stream that it reads; a module's is its output.
    """
    import torch

    anatomy.model.requires_grad_(True)  # else nothing is traced where an adapter was opened for answering alone
    sums: dict[Any, torch.Tensor] = {}
    rows = 0
    for batch in batches:
        with _traced(anatomy) as (seen, added), torch.enable_grad():
            logits = anatomy.model(**inputs(batch)).logits
            score = decide(logits, anatomy.head, batch).score(logits)
            gradients = torch.autograd.grad(score.sum(), list(seen.values()), allow_unused=True)
        count = len(score)
        rows += count
        for (key, activation), gradient in zip(seen.items(), gradients, strict=True):
            part = added.get(key, activation)
            found = torch.zeros_like(part) if gradient is None else gradient * part  # (rows, tokens, width)
            widths = {"heads": anatomy.heads, "units": found.shape[-1]}.get(key[0], 1)
            if found.ndim != 3 or len(found) != count or found.shape[-1] % widths:
                raise unread(anatomy.model, f"{key[0]} of {tuple(found.shape)} numbers are no (rows, tokens, width)")
            each = found.detach().double().unflatten(-1, (widths, -1)).sum(dim=(1, 3))  # (rows, parts)
            sums[key] = sums.get(key, torch.zeros(())) + each.abs().sum(dim=0)
    kinds: dict[str, list[np.ndarray]] = {}
    for key in sorted(sums):
        kinds.setdefault(key[0], []).append((sums[key] / rows).numpy())
    named = [(key[2], key[1] + 1) for key in sorted(sums) if key[0] == "modules"]
    modules = _shares(np.concatenate(kinds["modules"])).tolist()
    return Relevance(
        layers=_shares(np.concatenate(kinds["layers"])),
        heads=_shares(np.stack(kinds["heads"])),
        units=_shares(np.stack(kinds["units"])),
        modules=tuple(Module(*place, share) for place, share in zip(named, modules, strict=True)),
    )


def answers(anatomy: Anatomy, batches: Sequence[Batch]) -> list[torch.Tensor]:
    """Returns the logits of each batch."""
    import torch

    with torch.no_grad():
        return [anatomy.model(**inputs(batch)).logits for batch in batches]


def remove(
    anatomy: Anatomy, kind: Kind, chosen: np.ndarray, batches: Sequence[Batch], *, before: Sequence[torch.Tensor]
) -> Effect:
    """Returns what becomes of the decisions where the chosen heads or units, (blocks, parts) bool, are set to zero.

    `before` is what the whole model answers.
    """
    moved = total = 0.0
    kept: list[float] = []
    with _without(anatomy, kind, chosen):
        after = answers(anatomy, batches)
    for batch, logits, other in zip(batches, before, after, strict=True):
        decision = decide(logits, anatomy.head, batch)
        moved += float((decision.score(other) - decision.score(logits)).abs().double().sum())
        total += float(decision.score(logits).abs().double().sum())
        kept += decision.kept(other)
    return Effect(moved / total if total else 0.0, sum(kept) / len(kept) if kept else None)


def inputs(batch: Batch) -> dict[str, torch.Tensor]:
    """Returns what the model reads of a batch: all but the labels."""
    return {name: tensor for name, tensor in batch.items() if name != LABELS}


def shuffle_weights(anatomy: Anatomy, *, seed: int) -> None:
    """Shuffles the entries of each linear layer of the blocks: a model of the same sizes that learned nothing."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for block in anatomy.blocks:
            for module in block.linear.values():
                weight: Any = getattr(module, "base_layer", module).weight
                order = torch.randperm(weight.numel(), generator=generator)
                weight.copy_(weight.flatten()[order].view_as(weight))


def _shares(found: np.ndarray) -> np.ndarray:
    total = found.sum()
    return found / total if total else found


@contextmanager
def _traced(anatomy: Anatomy) -> Iterator[tuple[dict[Any, torch.Tensor], dict[Any, torch.Tensor]]]:
    """Keeps by (kind, block, name) the tensors whose gradients are asked for, and what stands in for their values."""
    seen: dict[Any, torch.Tensor] = {}
    added: dict[Any, torch.Tensor] = {}
    handles = []

    def whole(at: int) -> Callable[..., None]:
        def note(_module: Any, given: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> None:
            seen["layers", at, ""] = after = output[0] if isinstance(output, tuple) else output
            added["layers", at, ""] = after - (given[0] if given else named["hidden_states"])

        return note

    def reads(kind: Kind, at: int) -> Callable[..., None]:
        def note(_module: Any, given: tuple[Any, ...]) -> None:
            seen[kind, at, ""] = given[0]

        return note

    def gives(at: int, name: str) -> Callable[..., None]:
        def note(_module: Any, _given: Any, output: Any) -> None:
            seen["modules", at, name] = output

        return note

    for at, block in enumerate(anatomy.blocks):
        handles.append(block.whole.register_forward_hook(whole(at), with_kwargs=True))
        handles.append(block.heads.register_forward_pre_hook(reads("heads", at)))
        handles.append(block.units.register_forward_pre_hook(reads("units", at)))
        handles += [module.register_forward_hook(gives(at, name)) for name, module in block.linear.items()]
    with hooked(handles):
        yield seen, added


@contextmanager
def _without(anatomy: Anatomy, kind: Kind, chosen: np.ndarray) -> Iterator[None]:
    import torch

    def silence(gone: torch.Tensor) -> Callable[..., Any]:
        def zero(_module: Any, given: tuple[Any, ...]) -> Any:
            mask = gone.repeat_interleave(given[0].shape[-1] // len(gone)).to(given[0].device)
            return (given[0].masked_fill(mask, 0.0), *given[1:])

        return zero

    gone = torch.from_numpy(chosen)
    blocks = zip(anatomy.blocks, gone, strict=True)
    with hooked([block.out(kind).register_forward_pre_hook(silence(one)) for block, one in blocks]):
        yield
