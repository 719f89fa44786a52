"""Prompt tuning: a frozen model reads trained vectors in front of its input (Lester et al. 2021)."""

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
)
from pydantic import Field

from espalier_peft_prompt import folder as folders
from espalier_peft_prompt import words

if TYPE_CHECKING:
    import torch

_METHOD = "prompt-tuning"


class PromptTuningConfig(PluginConfig):
    """How many virtual tokens, and where they start."""

    tokens: int = Field(default=20, ge=1, le=1024, description="Virtual tokens; they are taken from max_tokens.")
    text: str | None = Field(
        default=None, min_length=1, description="Words whose vectors are the start, repeated or cut; default: random."
    )


class PromptTuning:
    """Trains virtual tokens in front of the input."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[PromptTuningConfig]] = PromptTuningConfig

    def __init__(self, config: PromptTuningConfig) -> None:
        self._config = config

    def traits(self) -> PeftTraits:
        """Returns what prompt tuning can do: every head, not merged; the start reads embeddings: not ZeRO-3."""
        return PeftTraits(
            zero_stages=frozenset({0, 1, 2}),
            heads=frozenset(get_args(HeadKind)),
            identity_at_start=False,
            mergeable=False,
            mixes_in_batch=False,
            virtual_tokens=self._config.tokens,
            reference="copy",
            learning_rate=3e-2,
        )

    def parameters(self, blueprint: Blueprint) -> tuple[ParameterInfo, ...]:
        """Returns the vectors (tokens, width)."""
        shape = (self._config.tokens, words.token_width(blueprint))
        return (ParameterInfo(f"{folders.PROMPT}.embedding.weight", shape, blueprint.blocks + 1, "adapter"),)

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
            "kind": blueprint.head.kind,
            "new_modules": list(blueprint.new_modules),
        }
        injected: Any = _install(model, record)
        embedding = injected.get_submodule(folders.PROMPT).embedding
        if self._config.text is None:
            words.start_at_random(embedding, injected)
        else:
            words.start_from(self._config.text, embedding, injected)
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
    from espalier_peft_prompt.layers import Prompt

    install(model, Prompt(record["tokens"], record["width"]), kind=record["kind"])
    folders.mark(model, record)
    return model
