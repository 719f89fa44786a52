"""The entry-point groups, the protocols that stand behind them, and the check of a class against its protocol."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from typing import Any

from espalier_sdk import protocols


@dataclass(frozen=True, slots=True)
class Group:
    """One kind of choice: its entry-point group, a word for messages, its contract number, its protocols."""

    name: str
    noun: str
    contract: int
    protocols: tuple[type, ...]


GROUPS: dict[str, Group] = {
    group.name: group
    for group in (
        Group("espalier.sources", "source", 1, (protocols.Source,)),
        Group(
            "espalier.transforms",
            "transform",
            1,
            (protocols.RecordTransform, protocols.FittedTransform, protocols.CorpusTransform),
        ),
        Group("espalier.tasks", "task", 1, (protocols.Task,)),
        Group("espalier.learners", "learner", 1, (protocols.Learner,)),
        Group("espalier.model_strategies", "model strategy", 1, (protocols.ModelStrategy,)),
        Group("espalier.peft_methods", "PEFT method", 1, (protocols.PeftMethod,)),
        Group("espalier.training_controls", "training control", 1, (protocols.TrainingControl,)),
        Group("espalier.base_models", "base model", 1, (protocols.BaseModelSource,)),
        Group("espalier.metrics", "metric", 1, (protocols.Metric,)),
        Group("espalier.engines", "engine", 1, (protocols.Engine,)),
    )
}

_KIND_OF_TRANSFORM = {
    "record": protocols.RecordTransform,
    "fitted": protocols.FittedTransform,
    "corpus": protocols.CorpusTransform,
}


def did_you_mean(word: str, known: list[str]) -> str | None:
    """Returns `did you mean 'x'?` for the nearest known word, or None."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else None


def mismatches(plugin: type, group: Group) -> tuple[str, ...]:
    """Returns every way in which a class differs from its group's protocol; empty when it fits."""
    contract = getattr(plugin, "contract", None)
    if contract != group.contract:
        return (f"contract is {contract!r}, this version of espalier-sdk speaks contract {group.contract}",)
    protocol = _protocol_of(plugin, group)
    if protocol is None:
        return (f"kind is {getattr(plugin, 'kind', None)!r}, accepted: {', '.join(_KIND_OF_TRANSFORM)}",)
    found: list[str] = []
    if hasattr(plugin, "Config") and not _is_model(plugin.Config):
        found.append(f"Config is {plugin.Config!r}, must be a pydantic model class, such as a PluginConfig")
    for name in _members(protocol):
        wanted, given = getattr(protocol, name, None), getattr(plugin, name, None)
        if not hasattr(plugin, name):
            found.append(f"{name} is missing")
        elif inspect.isfunction(wanted) and name != "__init__":
            found.extend(_signature_difference(name, wanted, given))
    return tuple(found)


def _is_model(config: Any) -> bool:
    from pydantic import BaseModel

    return isinstance(config, type) and issubclass(config, BaseModel)


def _protocol_of(plugin: type, group: Group) -> type | None:
    if len(group.protocols) == 1:
        return group.protocols[0]
    return _KIND_OF_TRANSFORM.get(getattr(plugin, "kind", ""))


def _members(protocol: type) -> list[str]:
    names: dict[str, None] = {}
    for cls in reversed(protocol.__mro__):
        if getattr(cls, "_is_protocol", False) and cls.__module__ == protocols.__name__:
            own = [*inspect.get_annotations(cls), *cls.__dict__]
            names.update(dict.fromkeys(name for name in own if not name.startswith("_")))
    return list(names)


def _signature_difference(name: str, wanted: Any, given: Any) -> list[str]:
    if not callable(given):
        return [f"{name} is {type(given).__name__}, must be a method"]
    want, have = inspect.signature(wanted), inspect.signature(given)
    same = [_shape(parameter) for parameter in want.parameters.values()] == [
        _shape(parameter) for parameter in have.parameters.values()
    ]
    return [] if same else [f"{name}{_names(have)} must be {name}{_names(want)}"]


def _shape(parameter: inspect.Parameter) -> tuple[str, Any, Any]:
    return (parameter.name, parameter.kind, parameter.default)


def _names(signature: inspect.Signature) -> str:
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(inspect.Signature(bare))
