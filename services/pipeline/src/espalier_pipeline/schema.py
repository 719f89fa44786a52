"""The JSON schema of specs, for editors: the outer models, and for each plugin its own options."""

from __future__ import annotations

from typing import Any

from espalier_runtime.plugins import Plugins
from espalier_runtime.specs.models import Spec
from espalier_sdk.errors import PluginError

# Where a spec names a plugin: the definition and field, and the group that is named there.
_PLACES = {
    ("Objective", "task"): "espalier.tasks",
    ("DataSpec", "sources"): "espalier.sources",
    ("DataSpec", "transforms"): "espalier.transforms",
    ("Candidate", "strategy"): "espalier.model_strategies",
    ("Candidate", "base"): "espalier.base_models",
    ("Candidate", "peft"): "espalier.peft_methods",
    ("Candidate", "learner"): "espalier.learners",
    ("Candidate", "controls"): "espalier.training_controls",
    ("Candidate", "task"): "espalier.tasks",
    ("EvaluateSpec", "metrics"): "espalier.metrics",
    ("EvaluateSpec", "engine"): "espalier.engines",
}


def spec_schema() -> dict[str, Any]:
    """Returns the schema; a plugin that cannot be loaded keeps its name and loses its options."""
    schema = Spec.model_json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    for group in sorted(set(_PLACES.values())):
        definitions[_title(group)] = _choice(group, definitions)
    for (owner, field), group in _PLACES.items():
        _point(definitions[owner]["properties"][field], {"$ref": f"#/$defs/{_title(group)}"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _choice(group: str, definitions: dict[str, Any]) -> dict[str, Any]:
    plugins = Plugins()
    branches: list[dict[str, Any]] = []
    names = sorted({found.name for found in plugins.inventory(group)})
    for name in names:
        try:
            config = plugins.load_class(group, name).Config.model_json_schema(ref_template="#/$defs/{model}")
        except PluginError:
            config = {"type": "object"}
        definitions.update(config.pop("$defs", {}))
        branches.append(
            {
                "type": "object",
                "required": ["name"],
                "additionalProperties": False,
                "properties": {"name": {"const": name}, "config": config},
            }
        )
    return {"title": _title(group), "anyOf": [{"enum": names}, *branches]}


def _point(property_schema: dict[str, Any], reference: dict[str, Any]) -> None:
    """Replaces the general choice by the group's own, wherever it stands in a field's schema."""
    for key in ("items", "anyOf"):
        inside = property_schema.get(key)
        for one in inside if isinstance(inside, list) else [inside] if inside else []:
            _point(one, reference)
    if property_schema.get("$ref") == "#/$defs/Choice":
        property_schema.update(reference)


def _title(group: str) -> str:
    return "".join(word.capitalize() for word in group.removeprefix("espalier.").split("_")) + "Choice"
