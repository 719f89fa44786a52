"""Which variant answers a request, and under which heading that is recorded. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from espalier_serving.assignment import UnitKind, arm, enrolled, unit_hash
from espalier_serving.refusals import not_found
from espalier_serving.routing import Routing

Reason = Literal["enrolled", "unenrolled", "no_unit", "override", "fallback", "degraded"]


@dataclass(frozen=True, slots=True)
class Decision:
    """The variant that a request is assigned to, and why."""

    assigned: str
    reason: Reason
    experiment: str | None = None
    unit_hash: str | None = None
    window_seconds: int = 0


def decide(
    routing: Routing,
    champion: str,
    *,
    unit_of: Callable[[UnitKind], str | None],
    unit_key: bytes,
    override: str | None = None,
    stale: bool = False,
) -> Decision:
    """Assigns a request; raises Refused (not_found) for an override that names no variant.

    `unit_of` tells the unit of the kind that the experiment splits by. A stale routing sends all to the champion.
    """
    if override is not None:
        return Decision(_named(routing, override), "override")
    if stale:
        return Decision(champion, "degraded")
    running = routing.experiment
    if running is None:
        return Decision(champion, "unenrolled")
    unit = unit_of(running.unit)
    if unit is None:
        return Decision(champion, "no_unit")
    hashed = unit_hash(unit_key, running.unit, unit)
    if not enrolled(running.split, hashed):
        return Decision(champion, "unenrolled")
    chosen = running.control if arm(running.split, hashed) == "control" else running.treatment
    return Decision(chosen, "enrolled", running.id, hashed, running.window_seconds)


def _named(routing: Routing, name: str) -> str:
    if name not in routing.variants:
        raise not_found("variant", f"{routing.endpoint}/{name}", known=", ".join(sorted(routing.variants)))
    return routing.variants[name]
