"""Workers that are killed by request; what was never broken is no proof."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from espalier_pipeline import resuming
from espalier_pipeline.reading import check
from espalier_pipeline.resuming import Killer, Proof, verify_resume
from espalier_sdk.errors import TrainingFailed


@pytest.fixture
def workers() -> Iterator[tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """Two processes that do nothing."""
    started = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)]
    yield started[0], started[1]
    for one in started:
        one.kill()
        one.communicate()


def test_the_worker_of_another_request_is_left_alone(tmp_path: Path, workers) -> None:
    other, own = workers
    for request, worker in (("other", other), ("own", own)):
        beside = tmp_path / "store" / "attempts" / request / "beside"
        beside.mkdir(parents=True)
        (beside.parent / "heartbeat").write_text(json.dumps({"request": request}), encoding="utf-8")
        (beside / "progress.json").write_text(json.dumps({"step": 50, "pid": worker.pid}), encoding="utf-8")
    with Killer(tmp_path, "own", kills=2, every=2, chance=random.Random(0)) as killer:
        assert own.wait(timeout=30) == -9
        time.sleep(0.1)  # the second kill finds nobody new
    assert killer.killed_at == [50]
    assert other.poll() is None


def test_a_candidate_that_is_tuned_is_proved_with_its_own_values(
    spec: Path, services, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = ["candidates.tiny.tune={trials: 2, space: {training.learning_rate: {log_uniform: [0.001, 0.01]}}}"]
    assert check(spec, overrides=tuned).candidates["tiny"].tune is not None
    asked: list[list[str]] = []

    def prove(path: Path, name: str, *, overrides: list[str], **_: object) -> Proof:
        asked.append(overrides)
        return Proof(name, "model/tiny@1", "model/tiny@1", (7,), 5)

    monkeypatch.setattr(resuming, "_prove", prove)
    verify_resume(spec, candidate="tiny", kills=1, every=5, seed=0, overrides=tuned)
    assert check(spec, overrides=asked[0]).candidates["tiny"].tune is None


def test_a_training_that_began_anew_is_no_proof(spec: Path, services, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deadly(Killer):
        """Says that it killed."""

        def __init__(self, *given, **named) -> None:
            super().__init__(*given, **named)
            self.killed_at = [7]

    monkeypatch.setattr(resuming, "Killer", Deadly)
    with pytest.raises(TrainingFailed, match="it found no checkpoint"):
        verify_resume(spec, candidate="tiny", kills=1, every=5, seed=0)
