"""BitFit: nothing but the biases learns (Ben Zaken et al. 2022).

What is trained is each bias's change, a parameter of its own: the base stays what it was, and adapter and base can be
told apart. The change is folded into the bias by `merge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from espalier_sdk import Blueprint, HeadKind, ParameterInfo, PeftTraits, Placement, PluginConfig, SpecError
from pydantic import Field

from espalier_peft_adapters import beside
from espalier_peft_adapters.blocks import module_of

if TYPE_CHECKING:
    import torch

_METHOD = "bitfit"


class BitFitConfig(PluginConfig):
    """Which biases."""

    norms: bool = Field(default=True, description="Whether the biases of norms are trained, beside linear layers'.")


class BitFit:
    """Trains a change of every bias of linear layers and norms; the output is unchanged at step 0."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[BitFitConfig]] = BitFitConfig

    def __init__(self, config: BitFitConfig) -> None:
        self._config = config

    def traits(self) -> PeftTraits:
        """Returns what BitFit can do: every head, merged; ZeRO-3 was not tried."""
        return PeftTraits(
            zero_stages=frozenset({0, 1, 2}),
            heads=frozenset(get_args(HeadKind)),
            identity_at_start=True,
            mergeable=True,
            mixes_in_batch=False,
            reference="copy",
            learning_rate=5e-3,
        )

    def parameters(self, blueprint: Blueprint) -> tuple[ParameterInfo, ...]:
        """Returns one change per bias; SpecError where the base has none, as Llama."""
        return tuple(
            ParameterInfo(f"{module_of(bias)}.bias_delta", bias.shape, bias.depth, "adapter")
            for bias in self._biases(blueprint)
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
        """Puts the changes beside the biases; the model stays of its own class."""
        record = {
            "method": _METHOD,
            "modules": [module_of(bias) for bias in self._biases(blueprint)],
            "new_modules": list(blueprint.new_modules),
        }
        return _install(model, record, placement)

    def after_step(self, model: torch.nn.Module, *, step: int, steps: int) -> None:
        """Does nothing: biases need no care."""

    def extra_state(self, model: torch.nn.Module) -> Mapping[str, torch.Tensor]:
        """Returns nothing: `state_dict` has all."""
        return {}

    def restore(self, model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Does nothing: there is no extra state."""

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        """Writes adapter.json and adapter.safetensors."""
        beside.save(model, folder)

    def load(self, model: torch.nn.Module, folder: Path) -> torch.nn.Module:
        """Puts saved changes beside the biases of their base; DataError where the folder holds none."""
        loaded = _install(model, beside.read_record(folder, _METHOD), Placement())
        beside.fill(loaded, folder)
        return loaded

    def merge(self, model: torch.nn.Module) -> torch.nn.Module:
        """Adds the changes to the biases and returns the plain model."""
        import torch

        with torch.no_grad():
            for module in model.modules():
                if "bias_delta" in module._parameters:
                    changed: Any = module
                    changed.bias.add_(changed.bias_delta.to(changed.bias.dtype))
                    del changed.bias_delta
                    beside.unhook(module, _add_change)
        return model

    def _biases(self, blueprint: Blueprint) -> list[ParameterInfo]:
        weights = {module_of(one) for one in blueprint.parameters if one.name.endswith(".weight")}
        found = [
            one
            for one in blueprint.parameters
            # A bias without a weight beside it (BERT's over the vocabulary) is added by no layer that a hook can see.
            if one.name.endswith(".bias")
            and module_of(one) in weights
            and (one.role == "block" or (one.role == "norm" and self._config.norms))
        ]
        if not found:
            raise SpecError(
                "the base has no biases to train",
                field="peft",
                accepted="a base with biases, such as BERT",
                remedy="use ln-tuning, ia3 or lora",
            )
        return found


def _install(model: torch.nn.Module, record: dict[str, Any], placement: Placement) -> torch.nn.Module:
    import torch

    for name in record["modules"]:
        module = model.get_submodule(name)
        bias: Any = module.bias
        dtype = beside.own_dtype(module, placement)
        module.bias_delta = torch.nn.Parameter(torch.zeros_like(bias, dtype=dtype))
        module.register_forward_hook(_add_change)
    beside.mark(model, record, added=[f"{name}.bias_delta" for name in record["modules"]])
    return model


def _add_change(module: Any, arguments: Any, output: torch.Tensor) -> torch.Tensor:
    # Linear layers and layer norms add their bias last, so a change of it is a change of what they put out.
    changed: torch.Tensor = output + module.bias_delta.to(output.dtype)
    return changed
