"""How a spec names a plugin: `name`, or `{name, config}`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class PluginConfig(BaseModel):
    """The base of every plugin's `Config`: frozen, and unknown keys are refused."""

    # Built at first use: a process imports many configs and validates few.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class State(PluginConfig):
    """What was learned from the train split; travels as JSON with the dataset and then with the model."""


class Choice(PluginConfig):
    """A plugin by name, with its config; the bare name stands for an empty config."""

    name: str = Field(pattern="^[a-z0-9][a-z0-9-]*$", description="The plugin's name, as its entry point says it.")
    config: dict[str, Any] = Field(default_factory=dict, description="The plugin's own options.")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value
