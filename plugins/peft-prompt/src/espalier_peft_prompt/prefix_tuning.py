"""Prefix tuning: every block attends to trained keys and values in front of its own (Li and Liang 2021)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from espalier_sdk import (
    Blueprint,
    HeadKind,
    NotMergeable,
    ParameterInfo,
    PeftTraits,
    Placement,
    PluginConfig,
    SpecError,
)
from pydantic import Field

from espalier_peft_prompt import folder as folders

if TYPE_CHECKING:
    import torch

_METHOD = "prefix-tuning"
_KEYS = frozenset({"key", "k_proj", "k_lin"})


class PrefixTuningConfig(PluginConfig):
    """How long the prefix is, and what makes it."""

    tokens: int = Field(default=20, ge=1, le=1024, description="Virtual tokens; they are taken from max_tokens.")
    hidden_size: int | None = Field(
        default=None,
        ge=1,
        description="Width of an MLP that makes the prefix, as in the paper; default: none, trained as it is.",
    )


class PrefixTuning:
    """Trains a prefix of keys and values for each block; the input keeps its length."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[PrefixTuningConfig]] = PrefixTuningConfig

    def __init__(self, config: PrefixTuningConfig) -> None:
        self._config = config

    def traits(self) -> PeftTraits:
        """Returns what prefix tuning can do: every head, not merged; ZeRO-3 was not tried."""
        return PeftTraits(
            zero_stages=frozenset({0, 1, 2}),
            heads=frozenset(get_args(HeadKind)),
            identity_at_start=False,
            mergeable=False,
            mixes_in_batch=False,
            virtual_tokens=self._config.tokens,
            gradient_checkpointing=False,
            reference="copy",
            learning_rate=3e-2,
        )

    def parameters(self, blueprint: Blueprint) -> tuple[ParameterInfo, ...]:
        """Returns the prefix (tokens, blocks x 2 x width of keys), or what the MLP reads, and the MLP."""
        hidden, out = self._config.hidden_size, blueprint.blocks * 2 * _key_width(blueprint)
        shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (self._config.tokens, hidden or out)}
        if hidden:
            shapes |= {"mlp.0.weight": (hidden, hidden), "mlp.0.bias": (hidden,)}
            shapes |= {"mlp.2.weight": (out, hidden), "mlp.2.bias": (out,)}
        return tuple(
            ParameterInfo(f"{folders.PROMPT}.{name}", shape, blueprint.blocks + 1, "adapter")
            for name, shape in shapes.items()
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
        """Hands the prefix to every block; SpecError where the model takes no keys and values from outside."""
        record = {
            "method": _METHOD,
            "tokens": self._config.tokens,
            "width": _key_width(blueprint),
            "layers": blueprint.blocks,
            "hidden_size": self._config.hidden_size,
            "new_modules": list(blueprint.new_modules),
        }
        return _install(model, record)

    def after_step(self, model: torch.nn.Module, *, step: int, steps: int) -> None:
        """Does nothing: virtual tokens need no care."""

    def extra_state(self, model: torch.nn.Module) -> Mapping[str, torch.Tensor]:
        """Returns nothing: `state_dict` has all."""
        return {}

    def restore(self, model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Does nothing: there is no extra state."""

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        """Writes prompt.json and prompt.safetensors."""
        folders.save(model, folder)

    def load(self, model: torch.nn.Module, folder: Path) -> torch.nn.Module:
        """Puts saved virtual tokens into their base; DataError where the folder holds none."""
        loaded = _install(model, folders.read_record(folder, _METHOD))
        folders.fill(loaded, folder)
        return loaded

    def merge(self, model: torch.nn.Module) -> torch.nn.Module:
        """Raises NotMergeable: tokens are no weights."""
        raise NotMergeable("virtual tokens cannot be folded into weights", field="peft")


def _install(model: torch.nn.Module, record: dict[str, Any]) -> torch.nn.Module:
    from espalier_peft_prompt.layers import Prefix
    from espalier_peft_prompt.prefixing import install

    config: Any = model.config
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    prefix = Prefix(record["tokens"], record["width"], record["layers"], record["hidden_size"])
    install(model, prefix, heads=record["width"] // head_width)
    folders.mark(model, record)
    return model


def _key_width(blueprint: Blueprint) -> int:
    """Returns the width of all keys of a token, which must be the same in every block."""
    keys = [
        one
        for one in blueprint.parameters
        if one.role == "block" and one.name.endswith(".weight") and one.name.split(".")[-2] in _KEYS
    ]
    if len(keys) != blueprint.blocks or len({one.shape[0] for one in keys}) != 1:
        raise SpecError(
            "the blocks of the base have no layers for keys of their own, of one width",
            field="peft",
            accepted="BERT- and Llama-like bases",
            remedy="use prompt-tuning",
        )
    return keys[0].shape[0]
