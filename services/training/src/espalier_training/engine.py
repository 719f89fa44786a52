"""One phase's engine: the learner's trainer with the plan's groups, the global schedule, and own checkpoints.

A phase is a new engine, because DDP and DeepSpeed fix what they train when they start. Knows nothing of Ray.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_sdk import HeadKind, Parts, Phase, TrainingFailed, clean_name

from espalier_training.diverging import Watch
from espalier_training.order import EpochOrder, follow_epochs
from espalier_training.rules import Anchors, parameter_groups
from espalier_training.validating import Shares
from espalier_training.zero import gathered, zero_config

if TYPE_CHECKING:
    import torch
    from espalier_sdk.protocols import Learner, PeftMethod

    from espalier_training.examples import Examples
    from espalier_training.job import TrainJob

WEIGHTS, EXTRA = "trained.safetensors", "extra.safetensors"
_SCHEDULES = {"constant": "constant_with_warmup"}  # transformers' own `constant` leaves the warmup out


@dataclass(frozen=True)
class Setting:
    """What all phases of one training share."""

    job: TrainJob
    learner: Learner
    peft: PeftMethod | None
    parts: Parts
    examples: Examples
    validation: Examples
    anchors: Anchors
    kept: frozenset[str]  # the weights that a checkpoint holds: all that some phase trains, and adapters
    steps: int
    learning_rate: float
    head_kind: HeadKind


def engine(setting: Setting, phase: Phase, *, out: Path, callbacks: list[Any]) -> Any:
    """Returns the trainer of a phase; `train(resume_from_checkpoint=...)` goes on at the step of a checkpoint."""
    from transformers import PrinterCallback

    job = setting.job
    order = EpochOrder(setting.examples.lengths(), batch_size=job.training["batch_size"], seed=job.training["seed"])
    trainer = _with_rules(setting, phase, order)(
        model=setting.parts.model,
        args=setting.learner.arguments(arguments(setting, stop=phase.stop, out=out)),
        train_dataset=setting.examples,
        eval_dataset=setting.validation,
        processing_class=setting.parts.tokenizer,
        callbacks=[follow_epochs(order), *callbacks],
        **setting.learner.inputs(setting.parts),
    )
    trainer.remove_callback(PrinterCallback)
    if setting.head_kind != "causal-lm":
        # Heads of encoders take the count of items and ignore it: transformers 5.23 then multiplies the loss by the
        # number of workers, and does not divide it by the accumulation steps.
        trainer.model_accepts_loss_kwargs = False
    _require_distributed(trainer, job)
    return trainer


def _with_rules(setting: Setting, phase: Phase, order: EpochOrder) -> type[Any]:
    import torch

    decay = setting.job.training["weight_decay"]
    trainer_class: Any = setting.learner.trainer()

    watch, shares = Watch(order.batch), Shares(setting.validation, setting.head_kind)

    class WithRules(trainer_class):  # type: ignore[misc]
        """The learner's trainer with the plan's parameter groups, penalties, schedule and checkpoints."""

        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return order

        def create_optimizer(self, *_: Any, **__: Any) -> torch.optim.Optimizer:
            if self.optimizer is None:
                groups = parameter_groups(
                    self.model, phase.rules, learning_rate=setting.learning_rate, weight_decay=decay
                )
                for group in groups:
                    group.pop("names")
                # One kernel for all weights: measured 1.3 times as fast as the loop over tensors on two cores.
                self.optimizer = torch.optim.AdamW(groups, lr=setting.learning_rate, fused=True)
            return self.optimizer

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            """Returns the schedule of the whole training, from this phase's first step on."""
            whole = super().create_scheduler(setting.steps, optimizer)
            for group in whole.optimizer.param_groups:
                group["lr"] = group["initial_lr"]
            shifted = [lambda step, at=at: at(step + phase.start) for at in whole.lr_lambdas]
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(whole.optimizer, shifted)
            return self.lr_scheduler

        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            loss: torch.Tensor = super().training_step(*args, **kwargs)
            watch.see("loss", loss, self.state.global_step + 1)
            return loss

        def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
            norm = super()._get_grad_norm(*args, **kwargs)
            if norm is not None:  # DeepSpeed tells none where it did no step
                watch.see("grad_norm", norm, self.state.global_step + 1)
            return norm

        def log(self, logs: dict[str, float], *given: Any, **more: Any) -> None:
            watch.tell(logs)
            super().log(logs, *given, **more)

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
            found = super().compute_loss(model, inputs, return_outputs=return_outputs, **more)
            if not model.training or (penalty := setting.anchors.penalty(self.model, phase.rules)) is None:
                return found
            loss = found[0] if return_outputs else found
            scaled = self.loss_is_scaled_for_ga
            if scaled is None:
                scaled = self.model_accepts_loss_kwargs and more.get("num_items_in_batch") is not None
            loss = loss + (penalty / self.current_gradient_accumulation_steps if scaled else penalty)
            return (loss, found[1]) if return_outputs else loss

        def prediction_step(self, model: Any, inputs: Any, *given: Any, **more: Any) -> Any:
            share = shares.of(inputs)
            loss, *others = super().prediction_step(model, inputs, *given, **more)
            return (None if loss is None else loss * share, *others)

        def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
            """Lets an engine of DeepSpeed begin at a phase's start: the model has the checkpoint's weights already."""
            whole = setting.job.zero_stage and resume_from_checkpoint and is_whole(Path(resume_from_checkpoint))
            return super()._prepare_for_training(max_steps, train_dataloader, None if whole else resume_from_checkpoint)

        def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
            """Writes DeepSpeed's shards; at a phase's end whole weights instead, which any engine takes."""
            if not setting.job.zero_stage or self.state.global_step < phase.stop:
                return super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[no-any-return]
            names = frozenset(name for name, rule in phase.rules.items() if rule.trainable)
            weights = gathered(self.model, names)
            if self.args.should_save:
                write_weights(weights, Path(output_dir))
            return None

        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
            """Leaves out what stands in shards in DeepSpeed's own checkpoint: every worker would gather all of it."""
            if not setting.job.zero_stage:
                super().save_model(output_dir, _internal_call)

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            """Writes the weights that training changes; the start weights are built again from the seed."""
            save_weights(self.model, Path(output_dir or self.args.output_dir), kept=setting.kept, peft=setting.peft)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            load_weights(self.model, Path(resume_from_checkpoint), kept=setting.kept, peft=setting.peft)

    return WithRules


def arguments(setting: Setting, *, stop: int, out: Path) -> dict[str, Any]:
    """Returns what every learner's trainer is told for a phase that ends after step `stop`."""
    import torch

    job, settings = setting.job, setting.job.training
    return {
        "output_dir": str(out),
        "max_steps": stop,
        "per_device_train_batch_size": job.micro_batch_size,
        "per_device_eval_batch_size": job.micro_batch_size,  # no other shapes: kernels keep memory for each
        "gradient_accumulation_steps": job.accumulation,
        "learning_rate": setting.learning_rate,
        "lr_scheduler_type": _SCHEDULES.get(settings["schedule"], settings["schedule"]),
        "warmup_steps": math.floor(settings["warmup"] * setting.steps),
        "weight_decay": settings["weight_decay"],
        "max_grad_norm": settings["max_grad_norm"],
        "seed": settings["seed"],
        "bf16": settings["dtype"] == "bfloat16",
        "deepspeed": zero_config(job),
        "gradient_checkpointing": job.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        # Without this, accelerate on a host without GPU trains each worker's own copy and says nothing.
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": max(1, setting.steps // 50),
        "logging_nan_inf_filter": False,  # else a loss that is no number is logged as the average of those before
        "prediction_loss_only": True,
        "save_strategy": "no",  # callbacks decide: transformers would save once more at the end of every phase
        "eval_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "ddp_find_unused_parameters": False,
    }


def is_whole(checkpoint: Path) -> bool:
    """Tells whether a checkpoint holds weights, not the shards of an engine."""
    return (checkpoint / WEIGHTS).is_file()


def write_weights(weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Writes weights by their clean names."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().contiguous() for name, value in weights.items()}, folder / WEIGHTS)


def save_weights(model: torch.nn.Module, folder: Path, *, kept: frozenset[str], peft: PeftMethod | None) -> None:
    """Writes the kept weights, and what a PEFT method keeps beside them."""
    from safetensors.torch import save_file

    write_weights(_kept(model, kept), folder)
    extra = dict(peft.extra_state(model)) if peft else {}
    if extra:
        save_file({name: value.detach().contiguous() for name, value in extra.items()}, folder / EXTRA)


def load_weights(model: torch.nn.Module, folder: Path, *, kept: frozenset[str], peft: PeftMethod | None) -> None:
    """Puts saved weights into a model in place; a kept one that was not saved stays as it is."""
    from safetensors.torch import load_file

    weights = load_file(folder / WEIGHTS)
    put_weights(model, weights, kept=kept & weights.keys())
    if peft and (folder / EXTRA).is_file():
        peft.restore(model, load_file(folder / EXTRA))


def put_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor], *, kept: frozenset[str]) -> None:
    """Copies the kept weights into a model's own, in its dtype."""
    import torch

    with torch.no_grad():
        for name, parameter in _kept(model, kept).items():
            parameter.copy_(weights[name])


def _kept(model: torch.nn.Module, kept: frozenset[str]) -> Mapping[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        clean = clean_name(name)
        if clean in kept and ".original_module." not in f".{clean}.":
            found[clean] = parameter
    return found


def _require_distributed(trainer: Any, job: TrainJob) -> None:
    """Refuses what accelerate would train in another way than asked, without a word."""
    if trainer.accelerator.num_processes != job.workers:
        raise TrainingFailed(
            f"{job.workers} workers were asked for, the trainer sees {trainer.accelerator.num_processes}: "
            "each would train a copy of its own",
            remedy="unset ACCELERATE_* in the workers' environment",
        )
    if bool(job.zero_stage) != trainer.is_deepspeed_enabled:
        raise TrainingFailed(
            f"ZeRO stage {job.zero_stage} was asked for, and DeepSpeed is {'' if job.zero_stage else 'not '}left out",
            remedy="unset ACCELERATE_* in the workers' environment",
        )
