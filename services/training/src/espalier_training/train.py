"""Training itself: a plain function that Ray Train calls on each worker, and that also runs alone.

Knows nothing about Ray; a process group, where there are several workers, is there before it is called.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_runtime.card import CARD
from espalier_runtime.merging import whole_folder
from espalier_runtime.plugins import Plugins
from espalier_runtime.store import Store
from espalier_sdk import (
    ArtifactRef,
    Blueprint,
    Budget,
    Choice,
    ParameterInfo,
    Parts,
    Phase,
    Placement,
    SpecError,
    built_head,
    clean_name,
    plan,
    quantisation,
)
from espalier_sdk.fourbit import require_four_bits

from espalier_training.auxiliaries import open_auxiliaries
from espalier_training.calibration import calibration_batches, injected_parameters
from espalier_training.callbacks import after_step, guard, reporter, require_finite_weights
from espalier_training.device import compile_blocks, own_device, require_compiler
from espalier_training.engine import Setting, engine, is_whole, load_weights, put_weights
from espalier_training.examples import Examples
from espalier_training.forgetting import Recall
from espalier_training.job import TrainJob
from espalier_training.keeping import Clock, OnValidation, agreed, keeper, listener, take_best, validations, validator
from espalier_training.memory import PeakMemory
from espalier_training.rules import Anchors, apply_rules, distances
from espalier_training.shortage import told_shortage
from espalier_training.zero import discard, gathered, require_same_world, require_thawing, require_zero

if TYPE_CHECKING:
    import torch

_TRACED_WEIGHTS = 100_000_000  # how far weights moved is told up to here: it needs a copy of each


def train(job: TrainJob, *, out: Path, rank: int = 0, on_validation: OnValidation | None = None) -> dict[str, Any]:
    """Trains one candidate and, on rank 0, writes the model folder; returns what was measured.

    Goes on from the newest committed checkpoint of `job.checkpoints`, and removes them when the model is written.
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
        work = _open(job, Path(scratch))
        reference = _reference(work, job)
        recall = _recall(work) if work.base and rank == 0 else None
        sharded = job.zero_stage == 3  # what is in shards cannot be read here
        examples = Examples(work.prepared / "train", share=job.training["train_share"], seed=job.training["seed"])
        model, blueprint, parameters = _build(work, job, examples, recall=None if sharded else recall)
        steps = _steps(examples.whole, job)
        phases = plan(parameters, strategy=work.strategy, controls=work.controls, blocks=blueprint.blocks, steps=steps)
        _require_one_end(job, phases)
        require_thawing(job, phases)
        start = _start_weights(model, phases, parameters)
        parts = Parts(model, work.tokenizer, reference, work.auxiliaries, work.budget.max_tokens)
        setting = _setting(job, work, parts, examples, phases, parameters, steps)
        loaded = time.perf_counter()
        anew = partial(_anew, work, job, examples)
        ended = _run_phases(setting, phases, folder=folder, rank=rank, on_validation=on_validation, anew=anew)
        model = ended.model
        if sharded:
            weights = gathered(model, setting.kept)
            model = anew(recall=recall)
            put_weights(model, weights, kept=setting.kept)
        best = take_best(setting, model, ended.history, folder=folder)
        require_finite_weights(model, ended.step)
        forgetting = recall.after(model) if recall else None
        if rank == 0:
            _save(job, work, model, out)
            if job.checkpoints:
                shutil.rmtree(folder)
    tokens = examples.tokens * ended.step * job.training["batch_size"] / max(1, len(examples))
    trained = {name for phase in phases for name, rule in phase.rules.items() if rule.trainable}
    losses = [entry["loss"] for entry in ended.history if "loss" in entry]
    measured = validations(ended.history)
    return {
        "steps": ended.step,
        "examples": len(examples),
        "load_seconds": round(loaded - started, 3),
        "train_seconds": round(ended.seconds, 3),
        "steps_per_second": round(ended.step / ended.seconds, 4),
        "tokens_per_second": round(tokens / ended.seconds, 1),
        "peak_memory_bytes": memory.bytes,
        "trainable_parameters": sum(one.count for one in parameters if one.name in trained),
        "parameters": sum(one.count for one in parameters),
        "size_bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        "train_loss": losses[-1] if losses else None,
        "validation_loss": dict(measured)[best] if best else measured[-1][1] if measured else None,
        "best_step": best or (min(measured, key=lambda one: one[1])[0] if measured else None),
        "resumed_at": ended.resumed_at,
        "history": [entry for entry in ended.history if "loss" in entry or "eval_runtime" in entry],
        "phases": trace(phases, parameters, moved=distances(model, start)),
        "forgetting": forgetting,
    }


def _anew(work: _Work, job: TrainJob, examples: Examples, *, recall: Recall | None = None) -> torch.nn.Module:
    """Returns the model as it was at the start: one that was in an engine of DeepSpeed goes into no other."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # else transformers would shard this one too
    return _build(work, job, examples, recall=recall)[0]


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
    rank: int,
    on_validation: OnValidation | None,
    anew: Callable[[], torch.nn.Module],
) -> _Ended:
    """Trains phase after phase, each from the checkpoint that the one before committed.

    Under ZeRO each phase also has a model of its own: the start `anew`, with the checkpoint's weights.
    """
    resumed = agreed(folder, rank=rank)
    if resumed:
        require_same_world(setting.job, resumed.world)
    clock = Clock(resumed.seconds if resumed else 0.0)
    peft, steps = setting.peft, setting.steps
    per_step = setting.examples.tokens / max(1, len(setting.examples)) * setting.job.training["batch_size"]
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
        callbacks = [guard(), validator(setting, clock), keeper(setting, phase, clock), *heard]
        callbacks += [after_step(peft, steps)] if peft else []
        callbacks += [reporter(setting.job, steps=steps, tokens_per_step=per_step)] if rank == 0 else []
        trainer = engine(setting, phase, out=folder, callbacks=callbacks)
        trainer.train(resume_from_checkpoint=str(at.folder) if at else None)
        if phase.stop < steps:
            at = agreed(folder, rank=rank)
    assert trainer is not None, "the last step has no checkpoint, so there is a phase to train"
    state = trainer.state
    resumed_at = resumed.step if resumed else None
    return _Ended(setting.parts.model, state.global_step, clock.seconds, state.log_history, resumed_at)


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
    job: TrainJob,
    work: _Work,
    parts: Parts,
    examples: Examples,
    phases: Sequence[Phase],
    parameters: Sequence[ParameterInfo],
    steps: int,
) -> Setting:
    trained = {name for phase in phases for name, rule in phase.rules.items() if rule.trainable}
    return Setting(
        job=job,
        learner=work.learner,
        peft=work.peft,
        parts=parts,
        examples=examples,
        validation=Examples(work.prepared / "validation"),
        anchors=Anchors(parts.model, phases),
        kept=frozenset(trained | {one.name for one in parameters if one.role == "adapter"}),
        steps=steps,
        learning_rate=job.training["learning_rate"] or _usual_rate(work),
        head_kind=work.head.kind,
    )


def _usual_rate(work: _Work) -> float:
    return (work.peft and work.peft.traits().learning_rate) or work.strategy.learning_rate


def _start_weights(
    model: torch.nn.Module, phases: Sequence[Phase], parameters: Sequence[ParameterInfo]
) -> dict[str, torch.Tensor]:
    """Returns copies of the weights that training will change, or none where they are too many to keep twice."""
    trained = {name for phase in phases for name, rule in phase.rules.items() if rule.trainable}
    if sum(one.count for one in parameters if one.name in trained) > _TRACED_WEIGHTS:
        return {}
    named = ((clean_name(name), parameter) for name, parameter in model.named_parameters())
    return {name: parameter.detach().clone() for name, parameter in named if name in trained}


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


class _Work:
    """The opened inputs and plugins of a job."""

    def __init__(self, job: TrainJob, scratch: Path) -> None:
        from transformers import AutoTokenizer

        store, plugins = Store.open(job.store), Plugins()
        dataset = store.open_artifact(ArtifactRef.parse(job.dataset)).folder
        self.prepared = store.open_artifact(ArtifactRef.parse(job.prepared)).folder
        self.base = whole_folder(store, ArtifactRef.parse(job.base), plugins, scratch=scratch) if job.base else None
        self.strategy = plugins.load("espalier.model_strategies", Choice(**job.strategy))
        if quantisation(self.strategy) != "none":
            require_four_bits(f"candidates.{job.candidate}.strategy.config.quantise")
        self.peft = plugins.load("espalier.peft_methods", Choice(**job.peft)) if job.peft else None
        self.learner = plugins.load("espalier.learners", Choice(**job.learner))
        self.auxiliaries = open_auxiliaries(job, self.learner, store, plugins, scratch=scratch)
        self.controls = [plugins.load("espalier.training_controls", Choice(**choice)) for choice in job.controls]
        task = plugins.load("espalier.tasks", Choice(**job.task))
        self.state = json.loads((dataset / "state.json").read_text(encoding="utf-8"))
        self.head = built_head(self.learner, task.head(type(task).State.model_validate(self.state["task"])))
        self.budget = Budget(**json.loads((self.prepared / "budget.json").read_text(encoding="utf-8")))
        self.tokenizer = AutoTokenizer.from_pretrained(self.prepared / "tokenizer")
        self.placement = Placement(
            zero_stage=job.zero_stage,
            workers=job.workers,
            dtype=job.training["dtype"],
            quantise=quantisation(self.strategy),
        )


def _open(job: TrainJob, scratch: Path) -> _Work:
    require_zero(job)
    require_compiler(job)
    return _Work(job, scratch)


def _reference(work: _Work, job: TrainJob) -> torch.nn.Module | None:
    """Returns a frozen copy of the model's start, where the learner compares with it and no adapter can be put off."""
    if not work.learner.needs_reference or (work.peft and work.peft.traits().reference == "disable"):
        return None
    import transformers

    transformers.set_seed(job.training["seed"])
    blueprint = work.strategy.blueprint(work.head, tokenizer=work.prepared / "tokenizer", base=work.base)
    model: torch.nn.Module = work.strategy.build(blueprint, base=work.base, placement=work.placement)
    return model.requires_grad_(False).eval()


def _recall(work: _Work) -> Recall:
    return Recall(work.tokenizer, virtual_tokens=work.peft.traits().virtual_tokens if work.peft else 0)


def _build(
    work: _Work, job: TrainJob, examples: Examples, *, recall: Recall | None
) -> tuple[torch.nn.Module, Blueprint, tuple[ParameterInfo, ...]]:
    import transformers

    transformers.set_seed(job.training["seed"])
    blueprint = work.strategy.blueprint(work.head, tokenizer=work.prepared / "tokenizer", base=work.base)
    placement = work.peft.place(work.placement) if work.peft else work.placement
    model = work.strategy.build(blueprint, base=work.base, placement=placement)
    if not job.zero_stage:  # else the engine moves it, and a model may be too large for one
        model.to(own_device())
    if recall:
        recall.before(model, blueprint)
    parameters = blueprint.parameters
    if work.peft:
        parts = Parts(model, work.tokenizer, auxiliaries=work.auxiliaries)
        batches = calibration_batches(job, work.peft, work.learner, parts, examples)
        model = work.peft.inject(model, blueprint=blueprint, placement=placement, calibration=batches)
        parameters = (*parameters, *injected_parameters(work.peft, model, blueprint))
        if placement.adapter_dtype == "float32":  # some methods add copies of a base's weights, in its precision
            trained = {one.name for one in parameters if work.strategy.trainable(one)}
            for name, parameter in model.named_parameters():
                if clean_name(name) in trained:
                    parameter.data = parameter.data.float()
    if job.compile:
        compile_blocks(model, blueprint)
    return model, blueprint, parameters


def _steps(examples: int, job: TrainJob) -> int:
    settings = job.training
    if settings["max_steps"]:
        return int(settings["max_steps"])
    per_epoch = math.ceil(examples / settings["batch_size"])
    return max(1, math.ceil(per_epoch * settings["epochs"]))


def _save(job: TrainJob, work: _Work, model: Any, out: Path) -> None:
    """Writes weights, tokenizer and card; nothing in it depends on where the base or the store lie."""
    if work.peft:
        work.peft.save(model, out)
    else:
        model.name_or_path = ""
        model.config._name_or_path = ""
        model.save_pretrained(out)
    shutil.copytree(work.prepared / "tokenizer", out, dirs_exist_ok=True)
    card = {
        "task": job.task,
        "state": work.state["task"],
        "transforms": work.state["transforms"],
        "strategy": job.strategy,
        "peft": job.peft,
        "base": job.base if work.peft else None,
        "quantise": work.placement.quantise,
        "head": {
            "kind": work.head.kind,
            "outputs": work.head.outputs,
            "side_width": work.head.side_width,
            "problem": work.head.problem,
        },
        "budget": {"max_tokens": work.budget.max_tokens, "padding_side": work.budget.padding_side},
    }
    (out / CARD).write_text(json.dumps(card, indent=1, sort_keys=True), encoding="utf-8")
