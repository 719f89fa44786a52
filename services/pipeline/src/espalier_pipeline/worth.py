"""Whether a baseline does as well as the chosen candidate, in words for table and report. Told, and never chosen by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from espalier_pipeline.tables import seconds


def against_baseline(
    chosen: Mapping[str, Any], baselines: Sequence[Mapping[str, Any]], metric: str, *, greater_is_better: bool
) -> str | None:
    """Returns a sentence where the best baseline's interval on validation reaches into the candidate's or beyond."""
    sign = 1.0 if greater_is_better else -1.0
    measured = [one for one in baselines if metric in one["validation"]]
    if not measured:
        return None
    best = max(measured, key=lambda one: sign * one["validation"][metric]["value"])
    worst_of_chosen, best_of_chosen = _ends(chosen["validation"][metric], sign)
    worst_of_baseline, best_of_baseline = _ends(best["validation"][metric], sign)
    if best_of_baseline < worst_of_chosen:
        return None
    beyond = worst_of_baseline > best_of_chosen
    told = f"is better than {chosen['name']}" if beyond else f"is within the interval of {chosen['name']}"
    spent = f"{seconds(best['train_seconds'])} against {seconds(chosen['train_seconds'])} of training"
    return f"{best['name']} {told} on validation: {spent}"


def _ends(measured: Mapping[str, Any], sign: float) -> tuple[float, float]:
    """Returns the worse and the better end of an interval, more being better; the value where there is none."""
    if measured["low"] is None:
        return sign * measured["value"], sign * measured["value"]
    worse, better = sorted((sign * measured["low"], sign * measured["high"]))
    return worse, better
