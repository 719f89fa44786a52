"""Keeping the store: verify every artifact, sweep what unfinished attempts and unused artifacts left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from espalier_runtime.store import Store
from espalier_sdk.artifacts import ArtifactRef

from espalier_pipeline.children import run_child
from espalier_pipeline.places import Places
from espalier_pipeline.records import RunRecord


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
    """Removes attempts without a fresh heartbeat; with `unused`, also artifacts that nothing names.

    Kept are those that a run record or the endpoint database names, and all that they were made of.
    """
    places = Places.of(home=home, store=store)
    opened = Store.open(places.store)
    swept: dict[str, Any] = {"attempts": [], "artifacts": [], "bytes": 0}
    if unused:
        kept = _with_inputs(opened, _named(places))
        for ref in [ref for ref in opened.refs() if ref not in kept]:
            swept["artifacts"].append(str(ref))
            swept["bytes"] += sum(entry.size_bytes for entry in opened.manifest(ref).files)
            if not dry_run:
                opened.remove(ref)
    for attempt in list(opened.abandoned(older_than_seconds=older_than_minutes * 60)):
        swept["attempts"].append(attempt)
        swept["bytes"] += opened.attempt_size(attempt) if dry_run else opened.discard(attempt)
    return swept


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
        ["--database", places.database],
        log=places.home / "logs" / "store-gc.log",
        environment={},
        on_event=lambda event: None,
    )
    return [ArtifactRef.parse(text) for text in document["models"]]


def _with_inputs(store: Store, refs: set[ArtifactRef]) -> set[ArtifactRef]:
    kept: set[ArtifactRef] = set()
    waiting = [ref for ref in refs if store.has(ref)]
    while waiting:
        ref = waiting.pop()
        if ref not in kept:
            kept.add(ref)
            waiting += [other for other in store.manifest(ref).inputs if store.has(other)]
    return kept
