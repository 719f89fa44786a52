"""Bottleneck adapters: small networks inside each block, which starts unchanged (Houlsby et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from espalier_sdk import Blueprint, HeadKind, NotMergeable, ParameterInfo, PeftTraits, Placement, PluginConfig
from pydantic import Field

from espalier_peft_adapters import beside
from espalier_peft_adapters.blocks import read_blocks

if TYPE_CHECKING:
    import torch

_METHOD = "bottleneck"
_PARALLEL_SCALE = 4.0  # He et al. 2022, section 4.6


class BottleneckConfig(PluginConfig):
    """Size, shape and place of the adapters."""

    reduction: int = Field(default=16, ge=1, description="Width of the model over the width of the bottleneck.")
    layout: Literal["houlsby", "pfeiffer", "parallel"] = Field(
        default="pfeiffer",
        description="houlsby: behind attention and the feed-forward part (Houlsby et al. 2019); pfeiffer: behind the "
        "feed-forward part alone (Pfeiffer et al. 2021); parallel: beside the feed-forward part (He et al. 2022).",
    )
    activation: Literal["relu", "gelu", "silu"] = Field(default="relu", description="What bends the narrow part.")
    scale: float | None = Field(
        default=None, gt=0, description="Factor of what an adapter adds; default: 4 for parallel, else 1."
    )


class BottleneckAdapters:
    """Trains a narrow network per block, behind or beside its parts; the output is unchanged at step 0."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[BottleneckConfig]] = BottleneckConfig

    def __init__(self, config: BottleneckConfig) -> None:
        self._config = config

    def traits(self) -> PeftTraits:
        """Returns what adapters can do: they bend what they add, so they do not merge; ZeRO-3 was not tried."""
        return PeftTraits(
            zero_stages=frozenset({0, 1, 2}),
            heads=frozenset(get_args(HeadKind)),
            identity_at_start=True,
            mergeable=False,
            mixes_in_batch=False,
            reference="copy",
        )

    def parameters(self, blueprint: Blueprint) -> tuple[ParameterInfo, ...]:
        """Returns down (size, width) and up (width, size), with biases, for each place."""
        found: list[ParameterInfo] = []
        for place in self._places(blueprint):
            width, size = place["width"], place["size"]
            shapes = {
                "down.weight": (size, width),
                "down.bias": (size,),
                "up.weight": (width, size),
                "up.bias": (width,),
            }
            found += [
                ParameterInfo(f"{place['module']}.adapter.{name}", shape, place["depth"], "adapter")
                for name, shape in shapes.items()
            ]
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
        """Puts the adapters into the model, which stays of its own class."""
        record = {
            "method": _METHOD,
            "places": list(self._places(blueprint)),
            "activation": self._config.activation,
            "scale": self._config.scale or (_PARALLEL_SCALE if self._config.layout == "parallel" else 1.0),
            "new_modules": list(blueprint.new_modules),
        }
        return _install(model, record, placement)

    def after_step(self, model: torch.nn.Module, *, step: int, steps: int) -> None:
        """Does nothing: adapters stay as they are made."""

    def extra_state(self, model: torch.nn.Module) -> Mapping[str, torch.Tensor]:
        """Returns nothing: `state_dict` has all."""
        return {}

    def restore(self, model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Does nothing: there is no extra state."""

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        """Writes adapter.json and adapter.safetensors."""
        beside.save(model, folder)

    def load(self, model: torch.nn.Module, folder: Path) -> torch.nn.Module:
        """Puts saved adapters into their base; DataError where the folder holds none."""
        loaded = _install(model, beside.read_record(folder, _METHOD), Placement())
        beside.fill(loaded, folder)
        return loaded

    def merge(self, model: torch.nn.Module) -> torch.nn.Module:
        """Raises NotMergeable: a bent change is no weight."""
        raise NotMergeable("bottleneck adapters are not linear: they cannot be folded into weights", field="peft")

    def _places(self, blueprint: Blueprint) -> Iterator[dict[str, Any]]:
        layout = self._config.layout
        for block in read_blocks(blueprint):
            size = max(1, block.width // self._config.reduction)
            modules = [block.feed_forward_out] if layout != "houlsby" else [block.attention_out, block.feed_forward_out]
            source = block.feed_forward_in if layout == "parallel" else None
            for module in modules:
                yield {"module": module, "source": source, "width": block.width, "size": size, "depth": block.depth}


def _install(model: torch.nn.Module, record: dict[str, Any], placement: Placement) -> torch.nn.Module:
    from espalier_peft_adapters.bottleneck_layer import Bottleneck, around, behind

    for place in record["places"]:
        module = model.get_submodule(place["module"])
        adapter = Bottleneck(
            place["width"],
            place["size"],
            activation=record["activation"],
            scale=record["scale"],
            dtype=beside.own_dtype(module, placement),
        )
        weight: Any = module.weight
        adapter.to(weight.device)
        if place["source"]:
            around(model.get_submodule(place["source"]), module, adapter)
        else:
            behind(module, adapter)
    beside.mark(model, record, added=[f"{place['module']}.adapter." for place in record["places"]])
    return model
