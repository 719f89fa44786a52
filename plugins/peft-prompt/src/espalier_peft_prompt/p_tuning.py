"""P-tuning: a small network makes the virtual tokens, so that they learn together (Liu et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from espalier_sdk import (
    Blueprint,
    HeadKind,
    NotMergeable,
    ParameterInfo,
    PeftTraits,
    Placement,
    PluginConfig,
)
from pydantic import Field

from espalier_peft_prompt import folder as folders
from espalier_peft_prompt import words

if TYPE_CHECKING:
    import torch

_METHOD = "p-tuning"


class PTuningConfig(PluginConfig):
    """How many virtual tokens, and the network that makes them."""

    tokens: int = Field(default=20, ge=1, le=1024, description="Virtual tokens; they are taken from max_tokens.")
    encoder: Literal["mlp", "lstm"] = Field(default="mlp", description="The network: an MLP, or an LSTM and an MLP.")
    hidden_size: int = Field(default=128, ge=1, description="Width of the network; one direction's of the LSTM.")


class PTuning:
    """Trains a network that makes virtual tokens in front of the input."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[PTuningConfig]] = PTuningConfig

    def __init__(self, config: PTuningConfig) -> None:
        self._config = config

    def traits(self) -> PeftTraits:
        """Returns what p-tuning can do: every head, not merged; the start reads embeddings: not ZeRO-3."""
        return PeftTraits(
            zero_stages=frozenset({0, 1, 2}),
            heads=frozenset(get_args(HeadKind)),
            identity_at_start=False,
            mergeable=False,
            mixes_in_batch=False,
            virtual_tokens=self._config.tokens,
            reference="copy",
            learning_rate=1e-2,
        )

    def parameters(self, blueprint: Blueprint) -> tuple[ParameterInfo, ...]:
        """Returns the vectors that the network reads, and the network."""
        width, hidden, shapes = words.token_width(blueprint), self._config.hidden_size, dict[str, tuple[int, ...]]()
        shapes["embedding.weight"] = (self._config.tokens, width)
        middle, reads = hidden, width
        if self._config.encoder == "lstm":
            middle = reads = 2 * hidden
            for way in ("", "_reverse"):  # four gates in each direction
                shapes[f"lstm.weight_ih_l0{way}"] = (4 * hidden, width)
                shapes[f"lstm.weight_hh_l0{way}"] = (4 * hidden, hidden)
                shapes[f"lstm.bias_ih_l0{way}"] = shapes[f"lstm.bias_hh_l0{way}"] = (4 * hidden,)
        shapes |= {"mlp.0.weight": (middle, reads), "mlp.0.bias": (middle,)}
        shapes |= {"mlp.2.weight": (width, middle), "mlp.2.bias": (width,)}
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
        """Puts the tokens in front; outputs and labels still align with `input_ids`."""
        record = {
            "method": _METHOD,
            "tokens": self._config.tokens,
            "width": words.token_width(blueprint),
            "hidden_size": self._config.hidden_size,
            "encoder": self._config.encoder,
            "kind": blueprint.head.kind,
            "new_modules": list(blueprint.new_modules),
        }
        injected: Any = _install(model, record)
        words.start_at_random(injected.get_submodule(folders.PROMPT).embedding, injected)
        return injected  # type: ignore[no-any-return]

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
    from espalier_peft_prompt.aligning import install
    from espalier_peft_prompt.layers import EncodedPrompt

    prompt = EncodedPrompt(record["tokens"], record["width"], record["hidden_size"], record["encoder"])
    install(model, prompt, kind=record["kind"])
    folders.mark(model, record)
    return model
