"""All that two Espalier distributions must agree on: artifacts, plugin protocols, errors, planning.

Names are imported when they are asked for: building pydantic's models costs more than all the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espalier_sdk.artifacts import ArtifactKind, ArtifactRef, FileEntry, Manifest, PluginNeed, PluginUse
    from espalier_sdk.choice import Choice, PluginConfig, State
    from espalier_sdk.errors import (
        ClusterError,
        DataError,
        EspalierError,
        NotMergeable,
        PluginError,
        Problem,
        Refused,
        SpecError,
        ThresholdMissed,
        TrainingFailed,
    )
    from espalier_sdk.model import (
        Adapter,
        Blueprint,
        Budget,
        Columns,
        Head,
        HeadKind,
        ParameterInfo,
        Parts,
        PeftTraits,
        Phase,
        Placement,
        Quantise,
        Rule,
        Split,
        ZeroStage,
    )
    from espalier_sdk.planning import built_head, clean_name, compose, keeps_start, plan, quantisation

_HOMES = {
    "artifacts": ("ArtifactKind", "ArtifactRef", "FileEntry", "Manifest", "PluginNeed", "PluginUse"),
    "choice": ("Choice", "PluginConfig", "State"),
    "errors": (
        "ClusterError",
        "DataError",
        "EspalierError",
        "NotMergeable",
        "PluginError",
        "Problem",
        "Refused",
        "SpecError",
        "ThresholdMissed",
        "TrainingFailed",
    ),
    "model": (
        "Adapter",
        "Blueprint",
        "Budget",
        "Columns",
        "Head",
        "HeadKind",
        "ParameterInfo",
        "Parts",
        "PeftTraits",
        "Phase",
        "Placement",
        "Quantise",
        "Rule",
        "Split",
        "ZeroStage",
    ),
    "planning": ("built_head", "clean_name", "compose", "keeps_start", "plan", "quantisation"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Adapter",
    "ArtifactKind",
    "ArtifactRef",
    "Blueprint",
    "Budget",
    "Choice",
    "ClusterError",
    "Columns",
    "DataError",
    "EspalierError",
    "FileEntry",
    "Head",
    "HeadKind",
    "Manifest",
    "NotMergeable",
    "ParameterInfo",
    "Parts",
    "PeftTraits",
    "Phase",
    "Placement",
    "PluginConfig",
    "PluginError",
    "PluginNeed",
    "PluginUse",
    "Problem",
    "Quantise",
    "Refused",
    "Rule",
    "SpecError",
    "Split",
    "State",
    "ThresholdMissed",
    "TrainingFailed",
    "ZeroStage",
    "built_head",
    "clean_name",
    "compose",
    "keeps_start",
    "plan",
    "quantisation",
]


def __getattr__(name: str) -> object:
    """Imports a public name from its module the first time it is asked for."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
