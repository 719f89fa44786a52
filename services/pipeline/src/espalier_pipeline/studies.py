"""What a study found, for people: the trials of a candidate that was tuned, the best of them, what mattered.

Knows nothing about how trials are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef


def describe(store: Store, candidate: str, study: ArtifactRef) -> dict[str, Any]:
    """Returns what the run's document tells of a study: its outcome, and its trials, the best first."""
    opened = store.open_artifact(study)
    outcome = dict(opened.manifest.metrics)
    trials = json.loads((opened.folder / "trials.json").read_text(encoding="utf-8"))
    sign = -1.0 if outcome["greater_is_better"] else 1.0
    trials.sort(key=lambda one: (one["score"] is None, sign * (one["score"] or 0.0), one["number"]))
    return {"candidate": candidate, "study": str(study), **outcome, "trials": trials}


def sentence(found: Mapping[str, Any]) -> str:
    """Returns how many trials there were, what became of them, and the values of the best."""
    counted = [f"{len(found['trials'])} trials"]
    for state, words in (("stopped", "stopped early"), ("refused", "refused"), ("failed", "failed")):
        counted += [f"{found[state]} {words}"] if found[state] else []
    return f"{', '.join(counted)}; best: {values_text(found['values'])}"


def values_text(values: Mapping[str, Any]) -> str:
    """Returns `training.learning_rate 0.0003, peft.config.rank 16`."""
    return ", ".join(f"{path} {value_text(value)}" for path, value in values.items())


def value_text(value: Any) -> str:
    """Returns a value as a spec would have it, a plugin without options by its name alone."""
    if isinstance(value, Mapping) and set(value) <= {"name", "config"} and not value.get("config"):
        return str(value["name"])
    return value if isinstance(value, str) else json.dumps(value)
