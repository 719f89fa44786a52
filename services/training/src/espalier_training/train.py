"""Training itself: a plain function that Ray Train calls on each worker, and that also runs alone.

Knows nothing about Ray; a process group, where there are several workers, is there before it is called.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_sdk import ParameterInfo, Parts, Phase, SpecError, plan

from espalier_training.callbacks import after_step, reporter
from espalier_training.diverging import guard, require_finite_weights
from espalier_training.engine import Setting, engine, is_whole, load_weights, put_weights
from espalier_training.examples import Examples
from espalier_training.job import TrainJob
from espalier_training.keeping import Clock, OnValidation, agreed, keeper, listener, take_best, validations, validator
from espalier_training.memory import PeakMemory
from espalier_training.remote import RemoteCheckpoints, first_of_machine
from espalier_training.rules import Anchors, apply_rules, distances, start_of
from espalier_training.shortage import told_shortage
from espalier_training.work import Work
from espalier_training.zero import discard, gathered, require_same_world, require_thawing

if TYPE_CHECKING:
    import torch


def train(job: TrainJob, *, out: Path, rank: int = 0, on_validation: OnValidation | None = None) -> dict[str, Any]:
    """Trains one candidate and, on rank 0, writes the model folder; returns what was measured.

    Goes on from the newest committed checkpoint; all stay, since the model is not published yet (`forget`).
    `on_validation` hears every validation loss on rank 0, after a resumption those from before it first.
    Keys: steps, train_seconds (optimizer steps only), load_seconds, steps_per_second, tokens_per_second,
    peak_memory_bytes, trainable_parameters, parameters, size_bytes, train_loss, validation_loss, best_step,
    resumed_at, history (what was logged, by step), phases (what was trained when, at which rate, how far it moved),
    forgetting (what is left of what the base could do; None without a base, and on workers but the first).
    """
    import torch
    import transformers

    started = time.perf_counter()
    torch.set_num_threads(job.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    scratch_folder = tempfile.TemporaryDirectory(prefix="espalier-train-")
    with PeakMemory() as memory, scratch_folder as scratch, told_shortage(job):
        folder = Path(job.checkpoints) if job.checkpoints else Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        remote = RemoteCheckpoints.of(job)
        work = Work(job, Path(scratch))
        reference = work.reference()
        recall = work.recall() if rank == 0 else None
        sharded = job.zero_stage == 3  # what is in shards cannot be read here
        examples = Examples(work.prepared / "train", share=job.training["train_share"], seed=job.training["seed"])
        model, blueprint, parameters = work.build(examples, recall=None if sharded else recall)
        steps = _steps(examples.whole, job)
        phases = plan(parameters, strategy=work.strategy, controls=work.controls, blocks=blueprint.blocks, steps=steps)
        _require_weights(job, phases)
        _require_one_end(job, phases)
        require_thawing(job, phases)
        start = start_of(model, _trained(phases))
        parts = Parts(model, work.tokenizer, reference, work.auxiliaries, work.budget.max_tokens)
        setting = _setting(work, parts, examples, phases, parameters, steps)
        loaded = time.perf_counter()
        anew = partial(work.build_anew, examples)
        ended = _run_phases(
            setting, phases, folder=folder, remote=remote, rank=rank, on_validation=on_validation, anew=anew
        )
        model = ended.model
        if sharded:
            weights = gathered(model, setting.kept)
            model = anew(recall=recall)
            put_weights(model, weights, kept=setting.kept)
        best = take_best(setting, model, ended.history, folder=folder)
        require_finite_weights(model, ended.step)
        forgetting = recall.after(model) if recall else None
        if rank == 0:
            work.save(model, out)
        if remote and first_of_machine():
            shutil.rmtree(folder, ignore_errors=True)  # copies; two machines may share a home, and both remove them
    return _measured(setting, phases, parameters, ended, best=best) | {
        "load_seconds": round(loaded - started, 3),
        "peak_memory_bytes": memory.bytes,
        "size_bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        "phases": trace(phases, parameters, moved=distances(model, start)),
        "forgetting": forgetting,
    }


@dataclass(frozen=True, slots=True)
class _Ended:
    """How the phases ended, and the model that they trained."""

    model: torch.nn.Module
    step: int
    seconds: float
    history: list[dict[str, Any]]
    resumed_at: int | None


def _run_phases(
    setting: Setting,
    phases: Sequence[Phase],
    *,
    folder: Path,
    remote: RemoteCheckpoints | None,
    rank: int,
    on_validation: OnValidation | None,
    anew: Callable[[], torch.nn.Module],
) -> _Ended:
    """Trains phase after phase, each from the checkpoint that the one before committed.

    Under ZeRO each phase also has a model of its own: the start `anew`, with the checkpoint's weights.
    """
    resumed = agreed(folder, rank=rank, remote=remote)
    if resumed:
        require_same_world(setting.job, resumed.world)
    clock = Clock(resumed.seconds if resumed else 0.0)
    peft, steps = setting.peft, setting.steps
    per_step = _tokens_per_step(setting)
    trainer, at = None, resumed
    heard = [listener(on_validation)] if on_validation and rank == 0 else []
    for phase in phases:
        if at and phase.stop <= at.step:
            continue
        if setting.job.zero_stage and at and is_whole(at.folder):
            if trainer is not None:
                trainer.accelerator.free_memory()
                discard(setting.parts.model)
                setting = replace(setting, parts=replace(setting.parts, model=anew()))
            load_weights(setting.parts.model, at.folder, kept=setting.kept, peft=peft)
        apply_rules(setting.parts.model, phase.rules)
        callbacks = [guard(), validator(setting, clock, remote=remote), keeper(setting, phase, clock, remote=remote)]
        callbacks += heard
        callbacks += [after_step(peft, steps)] if peft else []
        callbacks += [reporter(setting.job, steps=steps, tokens_per_step=per_step, remote=remote)] if rank == 0 else []
        trainer = engine(setting, phase, out=folder, callbacks=callbacks)
        trainer.train(resume_from_checkpoint=str(at.folder) if at else None)
        if phase.stop < steps:
            at = agreed(folder, rank=rank, remote=remote)
    assert trainer is not None, "the last step has no checkpoint, so there is a phase to train"
    state = trainer.state
    resumed_at = resumed.step if resumed else None
    return _Ended(setting.parts.model, state.global_step, clock.seconds, state.log_history, resumed_at)


def _measured(
    setting: Setting,
    phases: Sequence[Phase],
    parameters: Sequence[ParameterInfo],
    ended: _Ended,
    *,
    best: int | None,
) -> dict[str, Any]:
    """Returns what the steps tell; `best` is the step whose weights were taken, where training may end early."""
    examples, tokens = setting.examples, _tokens_per_step(setting) * ended.step
    trained = _trained(phases)
    losses = [entry["loss"] for entry in ended.history if "loss" in entry]
    validated = validations(ended.history)
    return {
        "steps": ended.step,
        "examples": len(examples),
        "train_seconds": round(ended.seconds, 3),
        "steps_per_second": round(ended.step / ended.seconds, 4),
        "tokens_per_second": round(tokens / ended.seconds, 1),
        "trainable_parameters": sum(one.count for one in parameters if one.name in trained),
        "parameters": sum(one.count for one in parameters),
        "train_loss": losses[-1] if losses else None,
        "validation_loss": dict(validated)[best] if best else validated[-1][1] if validated else None,
        "best_step": best or (min(validated, key=lambda one: one[1])[0] if validated else None),
        "resumed_at": ended.resumed_at,
        "history": [entry for entry in ended.history if "loss" in entry or "eval_runtime" in entry],
    }


def trace(
    phases: Sequence[Phase], parameters: Sequence[ParameterInfo], *, moved: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Returns for each phase and depth what was trained, at which scale of the rate, and how far it moved in the end.

    `moved` is the mean over a depth's weights, each as |w - w0| / |w0|.
    """
    found = []
    for phase in phases:
        depths = []
        for depth in sorted({one.depth for one in parameters}):
            here = [one for one in parameters if one.depth == depth and phase.rules[one.name].trainable]
            far = [moved[one.name] for one in here if one.name in moved]
            depths.append(
                {
                    "depth": depth,
                    "trained": sum(one.count for one in here),
                    "lr_scale": max((phase.rules[one.name].lr_scale for one in here), default=0.0),
                    "anchor": max((phase.rules[one.name].anchor for one in here), default=0.0),
                    "moved": round(sum(far) / len(far), 6) if far else None,
                }
            )
        found.append({"start": phase.start, "stop": phase.stop, "depths": depths})
    return found


def _setting(
    work: Work,
    parts: Parts,
    examples: Examples,
    phases: Sequence[Phase],
    parameters: Sequence[ParameterInfo],
    steps: int,
) -> Setting:
    return Setting(
        job=work.job,
        learner=work.learner,
        peft=work.peft,
        parts=parts,
        examples=examples,
        validation=Examples(work.prepared / "validation"),
        anchors=Anchors(parts.model, phases),
        kept=frozenset(_trained(phases) | {one.name for one in parameters if one.role == "adapter"}),
        steps=steps,
        learning_rate=work.learning_rate,
        head_kind=work.head.kind,
    )


def _trained(phases: Sequence[Phase]) -> set[str]:
    """Returns the names of all weights that some phase trains."""
    return {name for phase in phases for name, rule in phase.rules.items() if rule.trainable}


def _require_weights(job: TrainJob, phases: Sequence[Phase]) -> None:
    for phase in phases:
        if not any(rule.trainable for rule in phase.rules.values()):
            raise SpecError(
                f"no weight is trained from step {phase.start} to step {phase.stop} of {phases[-1].stop}",
                field=f"candidates.{job.candidate}.controls",
                remedy="remove the control that freezes them all, or change its options: it may wait for a head, which "
                "a language model with PEFT does not train (head_alone: false)",
            )


def _require_one_end(job: TrainJob, phases: Sequence[Phase]) -> None:
    if len(phases) > 1 and job.training["early_stopping"] is not None:
        raise SpecError(
            f"early_stopping would leave out the rest of {len(phases)} phases",
            field=f"candidates.{job.candidate}.training.early_stopping",
            remedy="remove it, or the controls that change their rules by step",
        )
    if job.training["early_stopping"] is not None and not job.training["validations"]:
        raise SpecError(
            "early_stopping needs validations",
            field=f"candidates.{job.candidate}.training.validations",
            accepted="1 or more",
        )


def _steps(examples: int, job: TrainJob) -> int:
    settings = job.training
    if settings["max_steps"]:
        return int(settings["max_steps"])
    per_epoch = math.ceil(examples / settings["batch_size"])
    return max(1, math.ceil(per_epoch * settings["epochs"]))


def _tokens_per_step(setting: Setting) -> float:
    """Returns the mean over an epoch, whose last batch may be smaller."""
    return setting.examples.tokens / max(1, math.ceil(len(setting.examples) / setting.job.training["batch_size"]))
