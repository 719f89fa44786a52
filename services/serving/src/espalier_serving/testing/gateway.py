"""Fakes for tests of the gateway without Ray: a caller with fixed answers, and an endpoint that is ready to ask."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import select, update

from espalier_serving.calling import Reply
from espalier_serving.database import Database
from espalier_serving.experiments import start_experiment
from espalier_serving.ids import now
from espalier_serving.keys import ROLES, create_key
from espalier_serving.proposing import propose
from espalier_serving.tables import Revision, Variant


class FixedCaller:
    """Answers each variant's label; fails, waits or is invalid as it is told, by variant id."""

    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = labels
        self.errors: dict[str, list[Exception | None]] = {}  # one per call, None: none; the last one for ever
        self.delays: dict[str, float] = {}
        self.invalid: dict[str, Reply] = {}
        self.down: set[str] = set()
        self.kept: set[str] = set()
        self.calls: list[str] = []

    async def call(self, variant: str, items: Sequence[Any]) -> Reply:
        """Returns the fixed reply of a variant."""
        self.calls.append(variant)
        await asyncio.sleep(self.delays.get(variant, 0.0))
        if errors := self.errors.get(variant):
            error = errors.pop(0) if len(errors) > 1 else errors[0]
            if error is not None:
                raise error
        if variant in self.invalid:
            return self.invalid[variant]
        label = self.labels[variant]
        return {"predictions": [{"label": label, "score": 0.75, "scores": {label: 0.75}} for _ in items]}

    async def probe(self, variant: str) -> bool:
        """Returns whether the variant is up."""
        return variant not in self.down

    def keep(self, variants: Collection[str]) -> None:
        """Notes which variants there still are."""
        self.kept = set(variants)


def model_ref(letter: str) -> str:
    """Returns a reference to a model that is in no store."""
    return f"model/test@{letter * 64}"


def ready_endpoint(
    database: Database,
    url: str,
    *,
    unit: str = "user",
    coverage: float = 1.0,
    weights: Sequence[int] = (50, 50),
    running: bool = True,
) -> dict[str, str]:
    """Makes endpoint `support` with champion `a` and challenger `b`, both ready; returns all ids.

    With `running` the experiment runs, in force at once.
    """
    split = {"weights": list(weights), "coverage": coverage, "unit": unit, "control": "a", "treatment": "b"}
    proposed = propose(
        url,
        endpoint="support",
        task="classification",
        variants=[(name, model_ref(name), "echo", {}) for name in ("a", "b")],
        bootstrap="a",
        experiment=split,
    )
    with database.writing() as session:
        session.execute(update(Variant).values(state="ready"))
        if running:
            start_experiment(session, proposed["experiment"], if_match="*", actor="test")
        session.execute(update(Revision).values(active_at=now()))
        ids = {row.name: row.id for row in session.scalars(select(Variant))}
    return {**ids, "experiment": proposed["experiment"]}


def make_key(database: Database, *roles: str) -> str:
    """Makes a key with some roles, by default all."""
    with database.writing() as session:
        return str(create_key(session, roles=roles or ROLES, actor="test")["key"])
