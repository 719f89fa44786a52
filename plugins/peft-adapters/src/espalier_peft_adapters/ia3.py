"""(IA)3: keys, values and inner activations are stretched by learned vectors (Liu et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, get_args

from espalier_sdk import Blueprint, HeadKind, ParameterInfo, PeftTraits, Placement, PluginConfig, SpecError
from pydantic import Field

from espalier_peft_adapters import wrapping
from espalier_peft_adapters.blocks import module_of, read_blocks

if TYPE_CHECKING:
    import torch

_KEYS_AND_VALUES = frozenset({"key", "value", "k_proj", "v_proj", "k_lin", "v_lin"})


class Ia3Config(PluginConfig):
    """Which of the vectors."""

    feed_forward: bool = Field(
        default=True, description="Whether the inner activations of the feed-forward part are stretched too."
    )


class Ia3:
    """Trains one factor per key, value and inner unit; the output is unchanged at step 0."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[Ia3Config]] = Ia3Config

    def __init__(self, config: Ia3Config) -> None:
        self._config = config

    def traits(self) -> PeftTraits:
        """Returns what (IA)3 can do: every head, merged; ZeRO-3 was not tried."""
        return PeftTraits(
            zero_stages=frozenset({0, 1, 2}),
            heads=frozenset(get_args(HeadKind)),
            identity_at_start=True,
            mergeable=True,
            mixes_in_batch=False,
            opens_with_peft=True,
            quantised=True,
            learning_rate=1e-2,
        )

    def parameters(self, blueprint: Blueprint) -> tuple[ParameterInfo, ...]:
        """Returns factors (out, 1) for keys and values and (1, in) for the layer that ends the feed-forward part."""
        found: list[ParameterInfo] = []
        inner = set(self._inner(blueprint))
        for weight in self._weights(blueprint):
            out, width = weight.shape
            name = module_of(weight)
            shape = (1, width) if name in inner else (out, 1)
            found.append(ParameterInfo(f"{name}.ia3_l", shape, weight.depth, "adapter"))
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
        """Wraps the model with PEFT's (IA)3; modules that the base lacks are trained and saved whole."""
        import peft

        config = peft.IA3Config(
            target_modules=[module_of(weight) for weight in self._weights(blueprint)],
            feedforward_modules=self._inner(blueprint),
            **wrapping.options(blueprint),
        )
        return wrapping.wrap(model, config, placement)

    def after_step(self, model: torch.nn.Module, *, step: int, steps: int) -> None:
        """Does nothing: factors need no care."""

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
        return wrapping.load(model, folder, kind="IA3")

    def merge(self, model: torch.nn.Module) -> torch.nn.Module:
        """Multiplies the factors into the weights and returns the plain model."""
        return wrapping.merge(model)

    def _inner(self, blueprint: Blueprint) -> list[str]:
        return [block.feed_forward_out for block in read_blocks(blueprint)] if self._config.feed_forward else []

    def _weights(self, blueprint: Blueprint) -> list[ParameterInfo]:
        found: list[ParameterInfo] = []
        for block in read_blocks(blueprint):
            named = [one for one in block.attention if module_of(one).rpartition(".")[2] in _KEYS_AND_VALUES]
            if not named:
                raise SpecError(
                    f"block {block.depth} of the base has no layers for keys and values of their own",
                    field="peft",
                    accepted="BERT- and Llama-like bases",
                    remedy="use lora or bottleneck",
                )
            found += [*named, *(block.feed_forward[-1:] if self._config.feed_forward else ())]
        return found
