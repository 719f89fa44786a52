"""How a model learned, as its training left it beside the artifact: loss by step, and what was trained when."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef

# What every trainer logs, by transformers' and TRL's names: told elsewhere, or no signal.
_KEPT_BY_ALL = {"step", "epoch", "loss", "grad_norm", "learning_rate", "num_tokens"}
_KEPT_BY_ALL |= {"runtime", "samples_per_second", "steps_per_second", "model_preparation_time"}
_ENDS = 3  # logged losses at either end
_TIMES, _FAR = 2.0, 1.0  # a loss that ends so many times its start, and so far above it, has not learned
_FLAT = 0.01  # a rise of the validation loss below this share is no turn


def history(store: Store, model: str) -> list[dict[str, Any]]:
    """Returns loss by step, entries with `loss` or with `eval_loss`; nothing where the store is remote."""
    return _beside(store, model, "history.json")


def phases(store: Store, model: str) -> list[dict[str, Any]]:
    """Returns what was trained when, by depth; nothing where the store is remote."""
    return _beside(store, model, "phases.json")


def series(entries: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    """Returns step and value of each entry that has the key."""
    return [(int(entry["step"]), float(entry[key])) for entry in entries if key in entry]


def signals(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Returns what else a learner logged, such as reward margins: names by what stands in front of `/`."""
    found: dict[str, list[str]] = {}
    for name in sorted({key.removeprefix("eval_") for entry in entries for key in entry} - _KEPT_BY_ALL):
        if any(len(series(entries, key)) > 1 for key in (name, f"eval_{name}")):
            found.setdefault(name.partition("/")[0], []).append(name)
    return found


def divergence(entries: Sequence[Mapping[str, Any]]) -> str | None:
    """Returns a sentence where the loss ended far above its start; None where it did not, or is no measure of one.

    No norm of a gradient tells it: clipped, the steps are bounded, and the norms stay so.
    """
    losses = [value for _, value in series(entries, "loss")]
    if len(losses) < 2 * _ENDS:
        return None
    start, end = median(losses[:_ENDS]), median(losses[-_ENDS:])
    if min(losses) <= 0 or end < start + _FAR or end < _TIMES * start:
        return None
    return (
        f"The loss ended at {end:.3g}, and began at {start:.3g}: training diverged. A lower training.learning_rate, or "
        "a longer training.warmup, is needed."
    )


def overfitting(entries: Sequence[Mapping[str, Any]], *, early_stopping: bool = False) -> str | None:
    """Returns a sentence on where the validation loss turned and by how much; None where it was not followed.

    With early stopping the weights of the turn were kept.
    """
    measured = series(entries, "eval_loss")
    if len(measured) < 2:
        return None
    step, lowest = min(measured, key=lambda one: one[1])
    last_step, last = measured[-1]
    if step == last_step:
        return f"The validation loss was lowest at the end, {last:.3g}: more steps may still help."
    rise = (last - lowest) / lowest if lowest > 0 else 0.0
    if rise < _FLAT:
        return f"The validation loss has been flat since step {step} of {last_step}, at {lowest:.3g}."
    turned = f"The validation loss turned at step {step} of {last_step} and rose by {rise:.0%} until the end"
    if early_stopping:
        return f"{turned}: early stopping kept the weights of step {step}."
    return f"{turned}: it overfits. Fewer epochs, or training.early_stopping, would keep the weights from before."


def _beside(store: Store, model: str, name: str) -> list[dict[str, Any]]:
    folder = store.beside(ArtifactRef.parse(model))
    path = folder / name if folder else None
    return json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else []
