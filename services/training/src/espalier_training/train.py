"""Training itself: a plain function that Ray Train calls on each worker, and that also runs alone.

Knows nothing about Ray; a process group, where there are several workers, is there before it is called.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_runtime.opening import CARD, read_card
from espalier_runtime.plugins import Plugins
from espalier_runtime.store import Store
from espalier_sdk import (
    ArtifactRef,
    Blueprint,
    Budget,
    Choice,
    Head,
    ParameterInfo,
    Parts,
    Phase,
    Placement,
    SpecError,
    TrainingFailed,
    clean_name,
    plan,
)

from espalier_training.callbacks import after_step, guard, reporter, require_finite_weights
from espalier_training.examples import Examples
from espalier_training.job import TrainJob
from espalier_training.memory import PeakMemory

if TYPE_CHECKING:
    import torch

_NO_DECAY = re.compile(r"bias$|norm|(?:^|\.)ln_", re.IGNORECASE)
_SCHEDULES = {"constant": "constant_with_warmup"}  # transformers' own `constant` leaves the warmup out


def train(job: TrainJob, *, out: Path, rank: int = 0) -> dict[str, Any]:
    """Trains one candidate and, on rank 0, writes the model folder; returns what was measured.

    Keys: steps, train_seconds (optimizer steps only), load_seconds, steps_per_second, tokens_per_second,
    peak_memory_bytes, trainable_parameters, parameters, size_bytes, train_loss, history.
    """
    import torch
    import transformers

    started = time.perf_counter()
    torch.set_num_threads(job.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    settings = job.training
    transformers.set_seed(settings["seed"])
    with PeakMemory() as memory:
        work = _open(job)
        model, blueprint, parameters = _build(work, job)
        examples = Examples(work.prepared / "train")
        steps = _steps(len(examples), job)
        phase = _single_phase(
            plan(parameters, strategy=work.strategy, controls=work.controls, blocks=blueprint.blocks, steps=steps)
        )
        apply_rules(model, phase.rules)
        trainer = _trainer(job, work, model, examples, phase=phase, steps=steps, rank=rank)
        loaded = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - loaded
        history = [entry for entry in trainer.state.log_history if "loss" in entry]
        trained = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        require_finite_weights(trained, steps)
        if rank == 0:
            _save(job, work, trained, out)
        tokens = examples.tokens * steps * settings["batch_size"] / max(1, len(examples))
    return {
        "steps": steps,
        "examples": len(examples),
        "load_seconds": round(loaded - started, 3),
        "train_seconds": round(seconds, 3),
        "steps_per_second": round(steps / seconds, 4),
        "tokens_per_second": round(tokens / seconds, 1),
        "peak_memory_bytes": memory.bytes,
        "trainable_parameters": sum(one.count for one in parameters if phase.rules[one.name].trainable),
        "parameters": sum(one.count for one in parameters),
        "size_bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        "train_loss": history[-1]["loss"] if history else None,
        "history": history,
    }


class _Work:
    """The opened inputs and plugins of a job."""

    def __init__(self, job: TrainJob) -> None:
        from transformers import AutoTokenizer

        store, plugins = Store.open(job.store), Plugins()
        dataset = store.open_artifact(ArtifactRef.parse(job.dataset)).folder
        self.prepared = store.open_artifact(ArtifactRef.parse(job.prepared)).folder
        self.base = store.open_artifact(ArtifactRef.parse(job.base)).folder if job.base else None
        self.strategy = plugins.load("espalier.model_strategies", Choice(**job.strategy))
        self.peft = plugins.load("espalier.peft_methods", Choice(**job.peft)) if job.peft else None
        self.learner = plugins.load("espalier.learners", Choice(**job.learner))
        self.controls = [plugins.load("espalier.training_controls", Choice(**choice)) for choice in job.controls]
        task = plugins.load("espalier.tasks", Choice(**job.task))
        self.state = json.loads((dataset / "state.json").read_text(encoding="utf-8"))
        self.head: Head = task.head(type(task).State.model_validate(self.state["task"]))
        self.budget = Budget(**json.loads((self.prepared / "budget.json").read_text(encoding="utf-8")))
        self.tokenizer = AutoTokenizer.from_pretrained(self.prepared / "tokenizer")
        self.placement = Placement(zero_stage=job.zero_stage, workers=job.workers, dtype=job.training["dtype"])


def _open(job: TrainJob) -> _Work:
    if job.zero_stage:
        raise SpecError(
            f"where.zero_stage {job.zero_stage}: DeepSpeed is not part of this version",
            field=f"candidates.{job.candidate}.where.zero_stage",
            accepted="0",
        )
    work = _Work(job)
    _require_supported(job, work)
    return work


def _require_supported(job: TrainJob, work: _Work) -> None:
    """Refuses what the plugins ask for and this version would silently leave out."""
    at = f"candidates.{job.candidate}"
    if work.learner.needs_reference or work.learner.auxiliaries:
        raise SpecError(
            f"the learner {job.learner['name']} needs a reference model or other candidates' models: "
            "they are not part of this version",
            field=f"{at}.learner",
            remedy="choose another learner",
        )
    if work.peft and work.peft.traits().calibration_batches:
        raise SpecError(
            f"the PEFT method {(job.peft or {})['name']} calibrates on data before it trains: this version does not",
            field=f"{at}.peft",
            remedy="choose another initialisation or method",
        )
    if work.base and (work.base / CARD).is_file() and read_card(work.base)["peft"]:
        raise SpecError(
            "the base is an adapter of another candidate, which this version does not merge",
            field=f"{at}.base",
            remedy="start from a candidate whose strategy trains a whole model",
        )


def _build(work: _Work, job: TrainJob) -> tuple[torch.nn.Module, Blueprint, tuple[ParameterInfo, ...]]:
    blueprint = work.strategy.blueprint(work.head, tokenizer=work.prepared / "tokenizer", base=work.base)
    placement = work.peft.place(work.placement) if work.peft else work.placement
    model = work.strategy.build(blueprint, base=work.base, placement=placement)
    parameters = blueprint.parameters
    if work.peft:
        model = work.peft.inject(model, blueprint=blueprint, placement=placement, calibration=())
        parameters = (*parameters, *work.peft.parameters(blueprint))
    return model, blueprint, parameters


def _steps(examples: int, job: TrainJob) -> int:
    settings = job.training
    if settings["max_steps"]:
        return int(settings["max_steps"])
    per_epoch = math.ceil(examples / settings["batch_size"])
    return max(1, math.ceil(per_epoch * settings["epochs"]))


def _single_phase(phases: Sequence[Phase]) -> Phase:
    """Returns the one phase; controls that change their rules while training runs need one engine per phase."""
    if len(phases) > 1 or any(rule.anchor for rule in phases[0].rules.values()):
        raise SpecError(
            f"the controls ask for {len(phases)} phases or for anchors, this version trains one phase without anchors",
            field="controls",
            remedy="remove the controls that change their rules by step",
        )
    return phases[0]


def apply_rules(model: torch.nn.Module, rules: Mapping[str, Any]) -> None:
    """Sets `requires_grad` by the plan; what the plan does not name (PEFT's untouched copies) stays frozen."""
    named: set[str] = set()
    for name, parameter in model.named_parameters():
        clean = clean_name(name)
        rule = None if ".original_module." in f".{clean}." else rules.get(clean)
        parameter.requires_grad_(rule is not None and rule.trainable)
        if rule is not None:
            named.add(clean)
    missing = sorted(name for name, rule in rules.items() if rule.trainable and name not in named)
    if missing:
        raise TrainingFailed(
            f"the plan trains parameters that the model does not have: {', '.join(missing[:5])}",
            remedy="the strategy's or PEFT method's `parameters` and what it builds must agree: run its kit",
        )


def parameter_groups(
    model: torch.nn.Module, rules: Mapping[str, Any], *, learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Returns AdamW's groups: one per rate scale, with and without decay (none on biases and norms)."""
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        clean = clean_name(name)
        scale = rules[clean].lr_scale
        decay = 0.0 if _NO_DECAY.search(clean) else weight_decay
        group = groups.setdefault(
            (scale, decay), {"params": [], "lr": learning_rate * scale, "weight_decay": decay, "names": []}
        )
        group["params"].append(parameter)
        group["names"].append(clean)
    return list(groups.values())


def _trainer(
    job: TrainJob, work: _Work, model: torch.nn.Module, examples: Examples, *, phase: Phase, steps: int, rank: int
) -> Any:
    import torch
    from transformers import PrinterCallback

    settings = job.training
    rate = settings["learning_rate"] or work.strategy.learning_rate

    class WithRules(work.learner.trainer()):  # type: ignore[misc]
        """The learner's trainer with the plan's parameter groups."""

        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            """Returns an order in which examples of like length share a batch: less padding, the same examples.

            Grouped by the whole batch, not by a worker's share, so that it is the same for any number of workers.
            """
            from transformers.trainer_pt_utils import LengthGroupedSampler

            generator = torch.Generator().manual_seed(settings["seed"])
            return LengthGroupedSampler(settings["batch_size"], lengths=examples.lengths(), generator=generator)

        def create_optimizer(self, *_: Any, **__: Any) -> torch.optim.Optimizer:
            if self.optimizer is None:
                groups = parameter_groups(
                    self.model, phase.rules, learning_rate=rate, weight_decay=settings["weight_decay"]
                )
                for group in groups:
                    group.pop("names")
                # One kernel for all weights: measured 1.3 times as fast as the loop over tensors on two cores.
                self.optimizer = torch.optim.AdamW(groups, lr=rate, fused=True)
            return self.optimizer

    arguments = work.learner.arguments(_arguments(job, rate=rate, steps=steps))
    parts = Parts(model=model, tokenizer=work.tokenizer)
    trainer = WithRules(
        model=model,
        args=arguments,
        train_dataset=examples,
        processing_class=work.tokenizer,
        callbacks=[
            guard(),
            *([after_step(work.peft, steps)] if work.peft else []),
            *([reporter(job, steps)] if rank == 0 else []),
        ],
        **work.learner.inputs(parts),
    )
    trainer.remove_callback(PrinterCallback)
    if work.head.kind == "sequence-classification":
        # These heads take the count of items and ignore it: transformers 5.23 then multiplies the loss by the number
        # of workers, and does not divide it by the accumulation steps.
        trainer.model_accepts_loss_kwargs = False
    _require_distributed(trainer, job.workers)
    return trainer


def _arguments(job: TrainJob, *, rate: float, steps: int) -> dict[str, Any]:
    """Returns what every learner's trainer is told; nothing is saved or reported by the trainer itself."""
    import torch

    settings = job.training
    return {
        "output_dir": str(Path(job.beside) / "trainer") if Path(job.beside).is_dir() else "trainer",
        "max_steps": steps,
        "per_device_train_batch_size": job.micro_batch_size,
        "gradient_accumulation_steps": job.accumulation,
        "learning_rate": rate,
        "lr_scheduler_type": _SCHEDULES.get(settings["schedule"], settings["schedule"]),
        "warmup_steps": math.floor(settings["warmup"] * steps),
        "weight_decay": settings["weight_decay"],
        "max_grad_norm": settings["max_grad_norm"],
        "seed": settings["seed"],
        "bf16": settings["dtype"] == "bfloat16",
        # Without this, accelerate on a host without GPU trains each worker's own copy and says nothing.
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": max(1, steps // 50),
        "logging_nan_inf_filter": False,  # else a loss that is no number is logged as the average of those before
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "ddp_find_unused_parameters": False,
    }


def _require_distributed(trainer: Any, workers: int) -> None:
    if trainer.accelerator.num_processes != workers:
        raise TrainingFailed(
            f"{workers} workers were asked for, the trainer sees {trainer.accelerator.num_processes}: "
            "each would train a copy of its own",
            remedy="unset ACCELERATE_* in the workers' environment",
        )


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
        "head": {
            "kind": work.head.kind,
            "outputs": work.head.outputs,
            "side_width": work.head.side_width,
            "problem": work.head.problem,
        },
        "budget": {"max_tokens": work.budget.max_tokens, "padding_side": work.budget.padding_side},
    }
    (out / CARD).write_text(json.dumps(card, indent=1, sort_keys=True), encoding="utf-8")
