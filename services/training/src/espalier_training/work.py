"""What a training job opens and builds: its inputs and plugins, the model at its start, and the folder at its end.

Knows nothing about Ray or steps.
"""

from __future__ import annotations

import json
import shutil
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
    Placement,
    SpecError,
    built_head,
    clean_name,
    keeps_start,
    quantisation,
)
from espalier_sdk.fourbit import require_four_bits

from espalier_training.auxiliaries import open_auxiliaries
from espalier_training.calibration import calibration_batches, injected_parameters
from espalier_training.device import compile_blocks, own_device, require_compiler
from espalier_training.examples import Examples
from espalier_training.forgetting import Recall
from espalier_training.job import TrainJob
from espalier_training.zero import require_zero

if TYPE_CHECKING:
    import torch


class Work:
    """The opened inputs and plugins of a job.

    Raises SpecError where this machine lacks what the job asks of it: DeepSpeed, bitsandbytes, a C compiler.
    """

    def __init__(self, job: TrainJob, scratch: Path) -> None:
        from transformers import AutoTokenizer

        require_zero(job)
        require_compiler(job)
        self.job = job
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
            gradient_checkpointing=job.gradient_checkpointing,
        )

    @property
    def learning_rate(self) -> float:
        """The rate of the spec, else the method's usual one, else the strategy's."""
        told = self.job.training["learning_rate"] or (self.peft and self.peft.traits().learning_rate)
        return told or self.strategy.learning_rate

    def reference(self) -> torch.nn.Module | None:
        """Returns a frozen copy of the start, where `keeps_start` says so."""
        if not keeps_start(self.learner, self.peft):
            return None
        model: torch.nn.Module = self._start(self._blueprint(), self.placement)
        return model.requires_grad_(False).eval()

    def recall(self) -> Recall | None:
        """Returns what measures the forgetting of a base, or None where there is none."""
        if not self.base:
            return None
        return Recall(self.tokenizer, virtual_tokens=self.peft.traits().virtual_tokens if self.peft else 0)

    def build(
        self, examples: Examples, *, recall: Recall | None
    ) -> tuple[torch.nn.Module, Blueprint, tuple[ParameterInfo, ...]]:
        """Returns the model at its start, on this worker's device, and its weights; `recall` hears the base before."""
        blueprint = self._blueprint()
        require_places(blueprint, self.job.training["max_tokens"], candidate=self.job.candidate)
        placement = self.peft.place(self.placement) if self.peft else self.placement
        model = self._start(blueprint, placement)
        if not self.job.zero_stage:  # else the engine moves it, and a model may be too large for one
            model.to(own_device())
        if recall:
            recall.before(model, blueprint)
        parameters = blueprint.parameters
        if self.peft:
            parts = Parts(model, self.tokenizer, auxiliaries=self.auxiliaries)
            batches = calibration_batches(self.job, self.peft, self.learner, parts, examples)
            model = self.peft.inject(model, blueprint=blueprint, placement=placement, calibration=batches)
            parameters = (*parameters, *injected_parameters(self.peft, model, blueprint))
            if placement.adapter_dtype == "float32":  # some methods add copies of a base's weights, in its precision
                trained = {one.name for one in parameters if self.strategy.trainable(one)}
                for name, parameter in model.named_parameters():
                    if clean_name(name) in trained:
                        parameter.data = parameter.data.float()
        if self.job.compile:
            compile_blocks(model, blueprint)
        else:
            from espalier_training.dropout import thin_dropout

            thin_dropout(model)
        return model, blueprint, parameters

    def build_anew(self, examples: Examples, *, recall: Recall | None = None) -> torch.nn.Module:
        """Returns the model as it was at the start: one that was in an engine of DeepSpeed goes into no other."""
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()  # else transformers would shard this one too
        return self.build(examples, recall=recall)[0]

    def save(self, model: Any, out: Path) -> None:
        """Writes weights, tokenizer and card; nothing in it depends on where the base or the store lie."""
        if self.peft:
            self.peft.save(model, out)
        else:
            model.name_or_path = ""
            model.config._name_or_path = ""
            model.save_pretrained(out)
        shutil.copytree(self.prepared / "tokenizer", out, dirs_exist_ok=True)
        card = {
            "task": self.job.task,
            "state": self.state["task"],
            "transforms": self.state["transforms"],
            "strategy": self.job.strategy,
            "peft": self.job.peft,
            "base": self.job.base if self.peft else None,
            "quantise": self.placement.quantise,
            "head": {
                "kind": self.head.kind,
                "outputs": self.head.outputs,
                "side_width": self.head.side_width,
                "problem": self.head.problem,
            },
            "budget": {"max_tokens": self.budget.max_tokens, "padding_side": self.budget.padding_side},
        }
        (out / CARD).write_text(json.dumps(card, indent=1, sort_keys=True), encoding="utf-8")

    def _blueprint(self) -> Blueprint:
        return self.strategy.blueprint(self.head, tokenizer=self.prepared / "tokenizer", base=self.base)

    def _start(self, blueprint: Blueprint, placement: Placement) -> torch.nn.Module:
        import transformers

        transformers.set_seed(self.job.training["seed"])
        return self.strategy.build(blueprint, base=self.base, placement=placement)


def require_places(blueprint: Blueprint, max_tokens: int, *, candidate: str) -> None:
    """Raises SpecError where examples, virtual tokens included, may be longer than the model's table of positions."""
    if blueprint.positions is not None and max_tokens > blueprint.positions:
        raise SpecError(
            f"max_tokens {max_tokens}: the model has positions for {blueprint.positions} tokens",
            code="too_long",
            field=f"candidates.{candidate}.training.max_tokens",
            given=max_tokens,
            accepted=f"up to {blueprint.positions}",
            remedy="lower max_tokens, or choose a base with more positions",
        )
