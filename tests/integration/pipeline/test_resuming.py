"""Training workers killed at random steps: what is trained in the end is what an unbroken run trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from espalier_pipeline.command import run as command

LONG = ["--set", "candidates.tiny.training.max_steps=400", "--candidate", "tiny"]


def test_a_worker_that_is_killed_ends_with_the_same_weights(prepared: Path, capsys) -> None:
    assert command(["verify-resume", str(prepared), *LONG, "--kills", "1", "--every", "50", "--json"]) == 0
    (proof,) = json.loads(capsys.readouterr().out)["candidates"]
    assert proof["equal"]
    assert len(proof["killed_at"]) == 1
    assert proof["resumed_at"] >= 50


@pytest.mark.heavy
def test_a_training_that_is_too_short_to_be_killed_is_refused(prepared: Path, capsys) -> None:
    short = ["--set", "candidates.tiny.training.max_steps=3", "--candidate", "tiny"]
    assert command(["verify-resume", str(prepared), *short, "--kills", "1", "--every", "5"]) == 8
    assert "training was over after 0 of 1 kills" in capsys.readouterr().err


@pytest.mark.heavy
def test_the_candidate_is_killed_and_not_the_one_that_it_starts_from(prepared: Path, capsys) -> None:
    spec = yaml.safe_load(prepared.read_text(encoding="utf-8"))
    tiny = spec["candidates"]["tiny"]
    longer = tiny["training"] | {"max_steps": 100}
    spec["candidates"] = {
        "first": tiny | {"training": longer},
        "second": {"strategy": "full-finetune", "base": {"from": "first"}, "training": longer},
    }
    del spec["serve"]
    prepared.write_text(yaml.safe_dump(spec), encoding="utf-8")
    told = ["--candidate", "second", "--kills", "1", "--every", "20", "--json"]
    assert command(["verify-resume", str(prepared), *told]) == 0
    (proof,) = json.loads(capsys.readouterr().out)["candidates"]
    assert proof["equal"]
    assert proof["resumed_at"] >= 20
