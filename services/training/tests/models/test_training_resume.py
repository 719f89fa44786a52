"""Training that is broken off and goes on: checkpoints, phases, anchors, validation, early stopping."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from espalier_sdk import DataError, ParameterInfo, Rule, SpecError
from espalier_training import train as module
from espalier_training.checkpoints import COMMITTED, bring, commit, newest
from espalier_training.job import TrainJob
from espalier_training.order import EpochOrder
from espalier_training.train import train
from safetensors.torch import load_file

from .made import content, make


class Stopped(Exception):
    """What a killed process would be."""


class Thaw:
    """Trains the head alone in the first half, then everything, the blocks at half the rate."""

    zero_stages = frozenset({0})

    def boundaries(self, parameters: Sequence[ParameterInfo], *, steps: int) -> Sequence[int]:
        return (steps // 2,)

    def rule(self, parameter: ParameterInfo, *, blocks: int, step: int, steps: int) -> Rule:
        if parameter.depth > blocks:
            return Rule()
        return Rule(trainable=step >= steps // 2, lr_scale=0.5)


class Hold:
    """Anchors everything to its start."""

    zero_stages = frozenset({0})

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def boundaries(self, parameters: Sequence[ParameterInfo], *, steps: int) -> Sequence[int]:
        return ()

    def rule(self, parameter: ParameterInfo, *, blocks: int, step: int, steps: int) -> Rule:
        return Rule(anchor=self.strength)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    torch.set_num_threads(1)
    made = make(tmp_path_factory.mktemp("resume")).job
    return replace(made, checkpoints=None, checkpoint_steps=3)  # 12 steps, 6 in an epoch


@pytest.fixture
def controlled(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    def use(control: Any) -> None:
        plan = module.plan
        monkeypatch.setattr(module, "plan", lambda *a, **k: plan(*a, **(k | {"controls": [control]})))

    return use


def broken(job: TrainJob, at: int, monkeypatch: pytest.MonkeyPatch, *, out: Path, rank: int = 0) -> None:
    """Trains until a step, and there ends as a killed process would: without another word."""
    from transformers import TrainerCallback

    class Break(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == at:
                raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(module, "guard", Break)
        with pytest.raises(Stopped):
            train(job, out=out, rank=rank)


@pytest.mark.parametrize(
    ("control", "dtype", "moments"),
    [(None, "float32", (1, 6, 11)), (Thaw(), "float32", (4, 6, 7)), (None, "bfloat16", (7,))],
    ids=["one phase", "two phases", "bfloat16"],
)
def test_broken_at_any_step_it_goes_on_to_the_same_bytes(
    job: TrainJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    controlled: Any,
    control: Any,
    dtype: str,
    moments: Sequence[int],
) -> None:
    job = replace(job, training=job.training | {"dtype": dtype})
    if control:
        controlled(control)
    train(job, out=tmp_path / "unbroken")
    for at in moments:
        resumable = replace(job, checkpoints=str(tmp_path / f"checkpoints-{at}"))
        broken(resumable, at, monkeypatch, out=tmp_path / "nothing")
        metrics = train(resumable, out=tmp_path / f"resumed-{at}")
        assert metrics["resumed_at"] == ((at - 1) // 3 * 3 or None), at
        assert metrics["steps"] == 12
        assert content(tmp_path / f"resumed-{at}") == content(tmp_path / "unbroken"), at
        assert newest(Path(resumable.checkpoints or "")), "they stay until the model is published"
        assert not (tmp_path / "nothing").exists()


def test_what_is_frozen_in_every_phase_but_one_moves_in_that_one_only(
    job: TrainJob, tmp_path: Path, controlled: Any
) -> None:
    controlled(Thaw())
    phases = train(job, out=tmp_path)["phases"]
    assert [(phase["start"], phase["stop"]) for phase in phases] == [(0, 6), (6, 12)]
    first, second = ({one["depth"]: one for one in phase["depths"]} for phase in phases)
    assert [first[depth]["trained"] for depth in (0, 1)] == [0, 0]
    assert min(first[2]["trained"], second[0]["trained"], second[1]["trained"]) > 0
    assert (second[1]["lr_scale"], second[2]["lr_scale"]) == (0.5, 1.0)
    assert second[2]["moved"] > 0.05 > 0 < second[1]["moved"]


def test_the_rate_goes_on_over_phases_as_if_there_were_one(job: TrainJob, tmp_path: Path, controlled: Any) -> None:
    told = replace(job, training=job.training | {"max_steps": 12, "validations": 0})
    rates = [entry["learning_rate"] for entry in train(told, out=tmp_path / "one")["history"]]
    controlled(Thaw())
    thawed = [entry["learning_rate"] for entry in train(told, out=tmp_path / "two")["history"]]
    assert thawed[:6] == pytest.approx(rates[:6])
    assert thawed[6:] == pytest.approx([0.5 * rate for rate in rates[6:]])  # the first group is that of the embeddings


def test_an_anchor_keeps_weights_nearer_to_their_start(job: TrainJob, tmp_path: Path, controlled: Any) -> None:
    def moved(phases: list[dict[str, Any]]) -> float:
        return sum(one["moved"] for one in phases[0]["depths"])

    free = moved(train(job, out=tmp_path / "free")["phases"])
    controlled(Hold(10.0))
    held = moved(train(job, out=tmp_path / "held")["phases"])
    assert held < 0.7 * free


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    job: TrainJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(job, out=tmp_path / "unbroken")
    resumable = replace(job, checkpoints=str(tmp_path / "checkpoints"))
    broken(resumable, 8, monkeypatch, out=tmp_path / "nothing")
    weights = tmp_path / "checkpoints" / "checkpoint-6" / "trained.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert train(resumable, out=tmp_path / "resumed")["resumed_at"] == 3
    assert content(tmp_path / "resumed") == content(tmp_path / "unbroken")


def test_training_goes_on_from_a_checkpoint_that_is_named(
    job: TrainJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(job, out=tmp_path / "unbroken")
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    broken(replace(job, checkpoints=str(elsewhere)), 8, monkeypatch, out=tmp_path / "nothing")
    broken(replace(job, checkpoints=str(here)), 11, monkeypatch, out=tmp_path / "nothing")
    bring(elsewhere / "checkpoint-6", here, request=job.request)
    assert sorted(path.name for path in here.iterdir()) == ["checkpoint-6"]  # 9 was newer than what was asked for
    assert train(replace(job, checkpoints=str(here)), out=tmp_path / "resumed")["resumed_at"] == 6
    assert content(tmp_path / "resumed") == content(tmp_path / "unbroken")
    assert (elsewhere / "checkpoint-6" / COMMITTED).is_file()


def test_a_checkpoint_that_cannot_be_gone_on_from_is_refused(tmp_path: Path) -> None:
    source, here = tmp_path / "checkpoint-3", tmp_path / "here"
    source.mkdir()
    (source / "weights").write_text("3")
    with pytest.raises(DataError, match="is no committed checkpoint"):
        bring(source, here, request="ab")
    commit(source, seconds=1, request="ab", world={"workers": 1, "zero_stage": 0})
    with pytest.raises(SpecError, match="checkpoint of another request"):
        bring(source, here, request="cd")
    (source / "weights").write_text("4")
    with pytest.raises(DataError, match="differs from what was committed") as refused:
        bring(source, here, request="ab")
    assert refused.value.problems[0].file == str(source / "weights")
    assert not here.exists()


def test_only_the_newest_two_committed_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (3, 12, 9):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_text(str(step))
        commit(folder, seconds=step, request="ab", world={"workers": 1, "zero_stage": 0})
    (tmp_path / "checkpoint-15").mkdir()  # the process died while it wrote this one
    found = newest(tmp_path)
    assert found is not None
    assert (found.step, found.seconds) == (12, 12.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-12", "checkpoint-9"]
    assert json.loads((found.folder / COMMITTED).read_text())["files"][0]["path"] == "weights"


def test_an_order_is_that_of_its_epoch_whatever_was_asked_before() -> None:
    order = EpochOrder([3, 5, 2, 8, 1, 9], batch_size=2, seed=1)
    first = list(order)
    order.epoch = 1
    second = list(order)
    order.epoch = 0
    assert list(order) == first != second
    assert sorted(first) == sorted(second) == list(range(6))
    assert [order.batch(step) for step in range(1, 7)] == [(first + second)[at : at + 2] for at in range(0, 12, 2)]


def test_early_stopping_ends_and_keeps_the_weights_of_the_lowest_validation_loss(job: TrainJob, tmp_path: Path) -> None:
    wild = job.training | {"max_steps": 40, "validations": 20, "early_stopping": 2, "learning_rate": 0.3}
    metrics = train(replace(job, training=wild), out=tmp_path / "stopped")
    losses = {entry["step"]: entry["eval_loss"] for entry in metrics["history"] if "eval_loss" in entry}
    best = min(losses, key=lambda step: losses[step])
    assert metrics["steps"] == best + 4 < 40  # a validation every two steps
    assert (metrics["best_step"], metrics["validation_loss"]) == (best, losses[best])
    until = train(replace(job, training=wild | {"early_stopping": None}), out=tmp_path / "whole")
    assert until["steps"] == 40
    stopped, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("stopped", "whole"))
    assert any(not torch.equal(stopped[name], whole[name]) for name in stopped)


def test_early_stopping_and_phases_do_not_go_together(job: TrainJob, tmp_path: Path, controlled: Any) -> None:
    controlled(Thaw())
    with pytest.raises(SpecError, match="leave out the rest of 2 phases"):
        train(replace(job, training=job.training | {"early_stopping": 1}), out=tmp_path)
