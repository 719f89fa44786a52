"""AdaLoRA: updates P diag(E) Q share a budget of ranks that shrinks to where it matters (Zhang et al. 2023)."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from espalier_sdk import Blueprint, HeadKind, ParameterInfo, PeftTraits, Placement, PluginConfig
from pydantic import Field, model_validator

from espalier_peft_lora import wrapping

if TYPE_CHECKING:
    import torch

_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # as PEFT's RankAllocator calls them
_KEPT = "kept"


class AdaLoraConfig(PluginConfig):
    """Budget of ranks, and when it shrinks."""

    start_rank: int = Field(default=12, ge=2, le=1024, description="Rank of each update at the start.")
    rank: int = Field(default=8, ge=1, le=1024, description="Average rank at the end; must be below start_rank.")
    alpha: float = Field(default=16, gt=0, description="Scale of the update before rank.")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="Dropout in front of each update, in training.")
    targets: wrapping.Targets = Field(default="attention", description=wrapping.TARGETS)
    warmup: float = Field(default=0.1, ge=0, lt=1, description="Share of the steps before ranks are taken away.")
    settled: float = Field(default=0.2, ge=0, lt=1, description="Share of the steps at the end with fixed ranks.")
    interval: int = Field(default=1, ge=1, description="Steps between two allocations.")
    orthogonality: float = Field(
        default=0.5, ge=0, description="Weight of the term that keeps P and Q orthogonal, in the training loss."
    )

    @model_validator(mode="after")
    def _check_budget(self) -> AdaLoraConfig:
        if self.rank >= self.start_rank:
            raise ValueError(f"rank={self.rank}: must be below start_rank={self.start_rank}, or use lora")
        if self.warmup + self.settled >= 1:
            raise ValueError(f"warmup={self.warmup} and settled={self.settled} leave no steps to allocate ranks in")
        return self


class AdaLora:
    """Trains low-rank updates whose ranks are taken from where they matter least."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[AdaLoraConfig]] = AdaLoraConfig

    def __init__(self, config: AdaLoraConfig) -> None:
        self._config = config

    def traits(self) -> PeftTraits:
        """Returns what AdaLoRA can do: it reads gradients after the step, which DeepSpeed's optimizers have freed."""
        return PeftTraits(
            zero_stages=frozenset({0}),
            heads=frozenset(get_args(HeadKind)),
            identity_at_start=True,
            mergeable=True,
            mixes_in_batch=False,
            opens_with_peft=True,
            quantised=True,
            learning_rate=5e-3,
        )

    def parameters(self, blueprint: Blueprint) -> tuple[ParameterInfo, ...]:
        """Returns Q (rank, in), E (rank, 1) and P (out, rank) for each target, at the rank of the start."""
        rank = self._config.start_rank
        found: list[ParameterInfo] = []
        for target in wrapping.find_targets(blueprint, self._config.targets):
            out, width = wrapping.sides(target)
            found.append(wrapping.added(target, "lora_A", rank, width))
            found.append(wrapping.added(target, "lora_E", rank, 1))
            found.append(wrapping.added(target, "lora_B", out, rank))
        return tuple(found)

    def place(self, placement: Placement) -> Placement:
        """Returns the placement as it is."""
        return placement

    def inject(
        self,
        model: torch.nn.Module,
        *,
        blueprint: Blueprint,
        placement: Placement,
        calibration: Iterable[Mapping[str, torch.Tensor]],
    ) -> torch.nn.Module:
        """Wraps the model with PEFT's AdaLoRA; the length of training is told to it with each step."""
        import peft

        targets = wrapping.find_targets(blueprint, self._config.targets)
        config = peft.AdaLoraConfig(
            init_r=self._config.start_rank,
            target_r=self._config.rank,
            lora_alpha=self._config.alpha,  # type: ignore[arg-type]
            lora_dropout=self._config.dropout,
            deltaT=self._config.interval,
            orth_reg_weight=self._config.orthogonality,
            total_step=1,
            fan_in_fan_out=wrapping.are_transposed(targets),
            **wrapping.options(blueprint, targets),
        )
        return _settle(wrapping.wrap(model, config, placement))

    def after_step(self, model: torch.nn.Module, *, step: int, steps: int) -> None:
        """Updates the averages and takes ranks away, from the gradients of this step."""
        tuner = _tuner(model)
        config = tuner.peft_config["default"]
        config.total_step = steps
        config.tinit, config.tfinal = int(self._config.warmup * steps), int(self._config.settled * steps)
        # PEFT counts from 1, and has to see one step's gradients before it can rank anything.
        if steps - config.tfinal >= 2:
            tuner.update_and_allocate(step + 1)

    def extra_state(self, model: torch.nn.Module) -> Mapping[str, torch.Tensor]:
        """Returns the averages, and which ranks were kept last."""
        import torch

        tuner = _tuner(model)
        state = {
            f"{kind}/{name}": value for kind in _AVERAGES for name, value in getattr(tuner.rankallocator, kind).items()
        }
        for name, kept in (tuner.peft_config["default"].rank_pattern or {}).items():
            state[f"{_KEPT}/{name}"] = torch.tensor(kept)
        return state

    def restore(self, model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Puts the averages and the kept ranks back."""
        found: dict[str, dict[str, Any]] = {kind: {} for kind in (*_AVERAGES, _KEPT)}
        for key, value in state.items():
            kind, _, name = key.partition("/")
            found[kind][name] = value.tolist() if kind == _KEPT else value
        tuner = _tuner(model)
        for kind in _AVERAGES:
            setattr(tuner.rankallocator, kind, found[kind])
        tuner.peft_config["default"].rank_pattern = found[_KEPT] or None

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        """Writes every rank, those taken away with E = 0: PEFT would cut them off, and scale what is left anew."""
        config = _tuner(model).peft_config["default"]
        kept, config.rank_pattern = config.rank_pattern, None
        wrapping.save(model, folder)
        config.rank_pattern = kept

    def load(self, model: torch.nn.Module, folder: Path) -> torch.nn.Module:
        """Opens a saved adapter on its base; DataError where the folder holds none in safetensors."""
        return _settle(wrapping.load(model, folder, kind="ADALORA"))

    def merge(self, model: torch.nn.Module) -> torch.nn.Module:
        """Adds the updates to the frozen weights and returns the plain model."""
        return wrapping.merge(model)


def _tuner(model: torch.nn.Module) -> Any:
    wrapped: Any = model
    return wrapped.base_model


def _settle(model: torch.nn.Module) -> torch.nn.Module:
    """Mends two things of PEFT's: a constant that is a parameter, and a training term in every loss."""
    from peft.tuners._buffer_dict import BufferDict
    from peft.tuners.adalora import AdaLoraLayer

    tuner = _tuner(model)
    for layer in tuner.modules():
        if isinstance(layer, AdaLoraLayer):
            # `ranknum` never changes: as a parameter it would be counted, and trained by whoever trains all adapters.
            layer.ranknum = BufferDict({name: value.detach() for name, value in layer.ranknum.items()})
    tuner.forward = types.MethodType(_forward, tuner)
    return model


def _forward(tuner: Any, *args: Any, **kwargs: Any) -> Any:
    """Adds the orthogonality term while training only: a validation loss is the task's."""
    from peft.tuners.adalora import AdaLoraModel
    from peft.tuners.lora import LoraModel

    return (AdaLoraModel if tuner.training else LoraModel).forward(tuner, *args, **kwargs)
