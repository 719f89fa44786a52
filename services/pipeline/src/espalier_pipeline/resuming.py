"""`verify-resume`: kills the training worker at random steps and compares the model with an unbroken run's.

The worker tells its process and step in a file beside the attempt; who runs this kills only what stands there.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef, Manifest
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
    resumed_at: int

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
    written every `every` steps. What the candidate refers to is trained once, unbroken, and both start from it. One
    that is tuned is proved with the values that it has without: a study's trials would be trainings beside its own.
    Raises TrainingFailed where training was over before a worker could be killed, or went on from no checkpoint.
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
            if spec.candidates[name].tune:
                told.append(f"candidates.{name}.tune=null")
            unbroken, broken = (Path(scratch) / f"{name}-{kind}" for kind in ("unbroken", "broken"))
            needed = sorted(set(spec.candidates[name].references().values()))
            for other in needed:
                _train(path, other, unbroken, overrides)
            if needed:
                shutil.copytree(unbroken, broken)
            homes = (unbroken, broken)
            proofs.append(
                _prove(path, name, homes=homes, overrides=[*overrides, *told], kills=kills, every=every, chance=chance)
            )
    return proofs


def _prove(
    path: Path,
    name: str,
    *,
    homes: tuple[Path, Path],
    overrides: Sequence[str],
    kills: int,
    every: int,
    chance: random.Random,
) -> Proof:
    """Trains a candidate in both homes and kills its worker in the second."""
    unbroken, broken = homes
    whole = _train(path, name, unbroken, overrides)
    with Killer(broken, whole.provenance["request"], kills=kills, every=every, chance=chance) as killer:
        mended = _train(path, name, broken, overrides)
    if len(killer.killed_at) < kills:
        raise TrainingFailed(
            f"{name}: training was over after {len(killer.killed_at)} of {kills} kills",
            code="too_short",
            remedy="ask for fewer --kills or a smaller --every, or for more steps",
        )
    resumed_at = mended.metrics["resumed_at"]
    if resumed_at is None:
        raise TrainingFailed(
            f"{name}: training was killed and then began anew: it found no checkpoint",
            code="not_resumed",
            remedy="ask for a larger --every, so that a checkpoint is there before the kill",
        )
    return Proof(name, str(whole.ref()), str(mended.ref()), tuple(killer.killed_at), resumed_at)


def _train(path: Path, candidate: str, home: Path, overrides: Sequence[str]) -> Manifest:
    """Returns the manifest of a candidate's model, trained in a home where it is not there yet."""
    store = str(home / "store")
    result = run(path, only="train", candidate=candidate, home=home, store=store, overrides=overrides, view=QuietView())
    ref = next(one["ref"] for one in result.stages if one["stage"] == "train" and one["name"] == candidate)
    return Store.open(store).manifest(ArtifactRef.parse(ref))


class Killer:
    """Kills the worker that trains for one request in a home, at random steps, each between two checkpoints."""

    def __init__(self, home: Path, request: str, *, kills: int, every: int, chance: random.Random) -> None:
        self._home, self._request = home, request
        self._kills, self._every, self._chance = kills, every, chance
        self.killed_at: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

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
        for heartbeat in self._home.glob("store/attempts/*/heartbeat"):
            beat = _read(heartbeat)
            if beat and beat["request"] == self._request:
                event = _read(heartbeat.parent / "beside" / "progress.json")
                if event:
                    return event
        return None


def _read(path: Path) -> dict[str, Any] | None:
    """Returns what a file tells; None where it is not there, or just being written."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return found
