"""LN tuning: nothing but the norms learns (Zhao et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, get_args

from espalier_sdk import Blueprint, HeadKind, ParameterInfo, PeftTraits, Placement, PluginConfig, SpecError

from espalier_peft_adapters import wrapping
from espalier_peft_adapters.blocks import module_of

if TYPE_CHECKING:
    import torch


class LnTuningConfig(PluginConfig):
    """Tuned norms have no options."""


class LnTuning:
    """Trains a copy of every norm in place of the base's; the output is unchanged at step 0."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[LnTuningConfig]] = LnTuningConfig

    def __init__(self, config: LnTuningConfig) -> None:
        self._config = config

    def traits(self) -> PeftTraits:
        """Returns what LN tuning can do: every head, merged; ZeRO-3 was not tried."""
        return PeftTraits(
            zero_stages=frozenset({0, 1, 2}),
            heads=frozenset(get_args(HeadKind)),
            identity_at_start=True,
            mergeable=True,
            mixes_in_batch=False,
            opens_with_peft=True,
            quantised=True,
            learning_rate=5e-3,
        )

    def parameters(self, blueprint: Blueprint) -> tuple[ParameterInfo, ...]:
        """Returns the copy of each norm's parameters; SpecError where the base names no norms."""
        return tuple(
            ParameterInfo(
                f"{module_of(one)}.ln_tuning_layers.{one.name.rpartition('.')[2]}", one.shape, one.depth, "adapter"
            )
            for one in _norms(blueprint)
        )

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
        """Wraps the model with PEFT's LN tuning; modules that the base lacks are trained and saved whole."""
        import peft

        modules = sorted({module_of(one) for one in _norms(blueprint)})
        config = peft.LNTuningConfig(target_modules=modules, **wrapping.options(blueprint))
        return wrapping.wrap(model, config, placement)

    def after_step(self, model: torch.nn.Module, *, step: int, steps: int) -> None:
        """Does nothing: norms need no care."""

    def extra_state(self, model: torch.nn.Module) -> Mapping[str, torch.Tensor]:
        """Returns nothing: `state_dict` has all."""
        return {}

    def restore(self, model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Does nothing: there is no extra state."""

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        """Writes a folder that PEFT itself opens."""
        wrapping.save(model, folder)

    def load(self, model: torch.nn.Module, folder: Path) -> torch.nn.Module:
        """Opens a saved adapter on its base; DataError where the folder holds none in safetensors."""
        return wrapping.load(model, folder, kind="LN_TUNING")

    def merge(self, model: torch.nn.Module) -> torch.nn.Module:
        """Puts the trained norms in place of the base's and returns the plain model."""
        from peft.utils.other import ModulesToSaveWrapper

        merged = wrapping.merge(model)
        for name, module in list(merged.named_modules()):
            if isinstance(module, ModulesToSaveWrapper):  # PEFT 0.21 leaves them behind in this method alone
                parent, _, own = name.rpartition(".")
                setattr(merged.get_submodule(parent), own, module.modules_to_save["default"])
        return merged


def _norms(blueprint: Blueprint) -> list[ParameterInfo]:
    found = [one for one in blueprint.parameters if one.role == "norm"]
    if not found:
        raise SpecError("the base has no norms that its parameters' names tell", field="peft", remedy="use lora")
    return found
