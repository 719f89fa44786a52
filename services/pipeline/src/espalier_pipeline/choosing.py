"""The choice between candidates: the cheapest within one standard error of the best, on validation. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Standing:
    """How one candidate did on validation, and what it costs."""

    value: float
    error: float
    cost: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which candidate is chosen, which comes next, and the reason in words."""

    chosen: str
    runner_up: str | None
    best: str
    reason: str
    meets_limits: bool


def choose(
    standings: Mapping[str, Standing],
    *,
    greater_is_better: bool,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Verdict:
    """Returns the verdict by the one-standard-error rule (Breiman et al. 1984, Hastie et al. 2009, section 7.10).

    Candidates that miss the limits stand back while any meets them. The runner-up is the best of the rest.
    """
    assert standings, "a spec has at least one competing candidate"
    sign = 1.0 if greater_is_better else -1.0

    def rank(name: str) -> tuple[float, float, str]:
        return (-sign * standings[name].value, standings[name].cost, name)

    def inside(name: str) -> bool:
        value = standings[name].value
        return (at_least is None or value >= at_least) and (at_most is None or value <= at_most)

    meeting = [name for name in standings if inside(name)]
    eligible = sorted(meeting or standings, key=rank)
    best = eligible[0]
    floor = sign * standings[best].value - standings[best].error
    band = [name for name in eligible if sign * standings[name].value >= floor]
    chosen = min(band, key=lambda name: (standings[name].cost, rank(name)))
    rest = sorted((name for name in standings if name != chosen), key=lambda name: (name not in meeting, rank(name)))
    if len(standings) == 1:
        reason = "the only candidate"
    elif chosen == best:
        held = " meets the limits" if len(eligible) < len(standings) else ""
        reason = f"best, no cheaper one within one standard error{held}"
    else:
        reason = f"cheapest within one standard error of {best}"
    return Verdict(chosen, rest[0] if rest else None, best, reason, bool(meeting))
