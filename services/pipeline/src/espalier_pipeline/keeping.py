"""Keeping the store: verify every artifact, sweep what unfinished attempts and unused artifacts left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from espalier_runtime import shelf
from espalier_runtime.store import Store
from espalier_sdk.artifacts import ArtifactRef

from espalier_pipeline.children import run_child
from espalier_pipeline.packing import SUBMISSIONS
from espalier_pipeline.places import DATABASE_VARIABLE, Places
from espalier_pipeline.records import RunRecord

_LEASE_SECONDS = 300.0
_SUBMITTED_SECONDS = 7 * 24 * 3600.0  # a driver's Job is kept as long, and may be followed and submitted again


def verify(*, home: Path | None = None, store: str | None = None, remove_damaged: bool = False) -> list[dict[str, Any]]:
    """Re-hashes every artifact; a damaged one is removed where that is asked, so that a run makes it again."""
    opened = Store.open(Places.of(home=home, store=store).store)
    checked = []
    for ref in list(opened.refs()):
        problem = opened.verify(ref)
        removed = bool(problem and remove_damaged)
        if removed:
            opened.remove(ref)
        checked.append({"ref": str(ref), "problem": problem, "removed": removed})
    return checked


def collect(
    *,
    home: Path | None = None,
    store: str | None = None,
    older_than_minutes: float = 60,
    unused: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Removes attempts without a fresh heartbeat; with `unused`, also artifacts of that age that nothing names.

    Kept are those that a run record, the endpoint database or an attempt at work names, all that they were made of,
    and what is damaged: `store verify` judges that. What was submitted to a cluster, and what trainings and studies
    keep in an object store to go on from, goes a week after its last sign.
    """
    places = Places.of(home=home, store=store)
    opened = Store.open(places.store)
    age_seconds = older_than_minutes * 60
    swept: dict[str, Any] = {"attempts": [], "artifacts": [], "bytes": 0}
    for ref in _unused(opened, places, age_seconds) if unused else ():
        swept["artifacts"].append(str(ref))
        swept["bytes"] += opened.manifest(ref).size_bytes
        if not dry_run:
            opened.remove(ref)
    for attempt in list(opened.abandoned(older_than_seconds=age_seconds)):
        swept["attempts"].append(attempt)
        swept["bytes"] += opened.attempt_size(attempt) if dry_run else opened.discard(attempt)
    for kind in (SUBMISSIONS, shelf.CHECKPOINTS, shelf.STUDIES, shelf.RAY):
        swept[kind] = shelf.left_alone(opened, kind, seconds=max(age_seconds, _SUBMITTED_SECONDS))
        for folder in swept[kind] if not dry_run else ():
            shelf.remove(opened, folder)
    return swept


def _unused(store: Store, places: Places, age_seconds: float) -> list[ArtifactRef]:
    """Returns what nothing names and is old enough: a run at work publishes first and takes note after that."""
    found = [ref for ref in store.refs() if time.time() - store.made_at(ref) > age_seconds]
    # Asked after the list was made, so that what is taken up meanwhile is seen here; a beat comes every 20 s.
    kept = _with_inputs(store, _named(places) | store.leased(within_seconds=_LEASE_SECONDS))
    return [ref for ref in found if ref not in kept and store.verify_manifest(ref)]


def _named(places: Places) -> set[ArtifactRef]:
    """Returns what run records and the endpoint's variants name."""
    found: set[ArtifactRef] = set()
    for record in RunRecord.all(places.runs):
        texts = [stage["ref"] for stage in record.data.get("stages", []) if stage["ref"]]
        found |= {ArtifactRef.parse(text) for text in texts}
    return found | set(_served(places))


def _served(places: Places) -> list[ArtifactRef]:
    """Asks the serving service which models its variants name; it alone knows its database."""
    if places.database.startswith("sqlite:///") and not Path(places.database.removeprefix("sqlite:///")).is_file():
        return []
    document = run_child(
        "espalier_serving.named",
        [],
        log=places.home / "logs" / "store-gc.log",
        environment={DATABASE_VARIABLE: places.database},
        on_event=lambda event: None,
    )
    return [ArtifactRef.parse(text) for text in document["models"]]


def _with_inputs(store: Store, refs: set[ArtifactRef]) -> set[ArtifactRef]:
    kept: set[ArtifactRef] = set()
    waiting = list(refs)
    while waiting:
        ref = waiting.pop()
        if ref not in kept and store.verify_manifest(ref):
            kept.add(ref)
            waiting += store.manifest(ref).inputs
    return kept
