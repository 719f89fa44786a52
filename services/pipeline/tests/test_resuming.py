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
from espalier_pipeline.resuming import Killer, verify_resume
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


def test_a_training_that_began_anew_is_no_proof(spec: Path, services, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deadly(Killer):
        """Says that it killed."""

        def __init__(self, *given, **named) -> None:
            super().__init__(*given, **named)
            self.killed_at = [7]

    monkeypatch.setattr(resuming, "Killer", Deadly)
    with pytest.raises(TrainingFailed, match="it found no checkpoint"):
        verify_resume(spec, candidate="tiny", kills=1, every=5, seed=0)
