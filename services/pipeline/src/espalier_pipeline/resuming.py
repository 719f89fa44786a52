"""`verify-resume`: kills the training worker at random steps and compares the model with an unbroken run's.

The worker tells its process and step in a file beside the attempt; who runs this kills only what stands there.
"""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier_sdk.errors import SpecError, TrainingFailed

from espalier_pipeline.driver import run
from espalier_pipeline.reading import check
from espalier_pipeline.view import QuietView


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of one candidate: the models of both runs, and where the broken one was killed and went on."""

    candidate: str
    unbroken: str
    broken: str
    killed_at: tuple[int, ...]
    resumed_at: int | None

    @property
    def equal(self) -> bool:
        """Tells whether both models are the same, bit for bit."""
        return self.unbroken == self.broken

    def document(self) -> dict[str, Any]:
        """Returns the proof as JSON."""
        return {
            "candidate": self.candidate,
            "equal": self.equal,
            "unbroken": self.unbroken,
            "broken": self.broken,
            "killed_at": list(self.killed_at),
            "resumed_at": self.resumed_at,
        }


def verify_resume(
    path: Path, *, candidate: str | None, kills: int, every: int, seed: int, overrides: Sequence[str] = ()
) -> list[Proof]:
    """Trains each candidate twice in folders of their own, once without a break and once with killed workers.

    A worker is killed `kills` times, each time after a checkpoint that it has not seen before; checkpoints are
    written every `every` steps. Raises TrainingFailed where training was over before a worker could be killed.
    """
    spec = check(path, overrides=overrides)
    names = [candidate] if candidate else list(spec.candidates)
    if candidate and candidate not in spec.candidates:
        raise SpecError(f"there is no candidate {candidate!r}", given=candidate, accepted=", ".join(spec.candidates))
    chance, proofs = random.Random(seed), []
    with tempfile.TemporaryDirectory(prefix="espalier-resume-") as scratch:
        for name in names:
            told = [f"candidates.{name}.where.checkpoint_steps={every}"]
            told.append(f"candidates.{name}.where.max_failures={kills}")
            homes = [Path(scratch) / f"{name}-{kind}" for kind in ("unbroken", "broken")]
            unbroken = _train(path, name, homes[0], [*overrides, *told])
            killer = _Killer(homes[1], kills=kills, every=every, chance=chance)
            with killer:
                broken = _train(path, name, homes[1], [*overrides, *told])
            if len(killer.killed_at) < kills:
                raise TrainingFailed(
                    f"{name}: training was over after {len(killer.killed_at)} of {kills} kills",
                    code="too_short",
                    remedy="ask for fewer --kills or a smaller --every, or for more steps",
                )
            resumed = broken["metrics"].get("resumed_at")
            proofs.append(Proof(name, unbroken["ref"], broken["ref"], tuple(killer.killed_at), resumed))
    return proofs


def _train(path: Path, candidate: str, home: Path, overrides: Sequence[str]) -> dict[str, Any]:
    from espalier_runtime.store import Store
    from espalier_sdk import ArtifactRef

    result = run(path, only="train", candidate=candidate, home=home, overrides=overrides, view=QuietView())
    ref = next(one["ref"] for one in result.stages if one["stage"] == "train" and one["name"] == candidate)
    return {"ref": ref, "metrics": Store.open(str(home / "store")).manifest(ArtifactRef.parse(ref)).metrics}


class _Killer:
    """Kills the training worker of a home at random steps, each between two checkpoints."""

    def __init__(self, home: Path, *, kills: int, every: int, chance: random.Random) -> None:
        self._home, self._kills, self._every, self._chance = home, kills, every, chance
        self.killed_at: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        known: set[int] = set()
        for number in range(self._kills):
            wanted = (number + 1) * self._every + self._chance.randrange(1, self._every + 1)
            while not self._over.wait(0.01):
                event = self._event()
                if event and event["step"] >= wanted and event["pid"] not in known:
                    known.add(event["pid"])
                    os.kill(event["pid"], signal.SIGKILL)
                    self.killed_at.append(event["step"])
                    break

    def _event(self) -> dict[str, Any] | None:
        for path in self._home.glob("store/attempts/*/beside/progress.json"):
            try:
                event: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, json.JSONDecodeError):
                continue
            return event
        return None
