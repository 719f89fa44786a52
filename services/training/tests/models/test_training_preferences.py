"""Learning from pairs after learning from answers: the reference, adapters as bases, resuming."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from espalier_runtime.job import Job, Workplace, perform
from espalier_runtime.opening import open_model
from espalier_runtime.plugins import Plugins
from espalier_runtime.ray_session import Session
from espalier_runtime.request import prepare_request, train_request
from espalier_runtime.specs import Spec
from espalier_runtime.store import Store
from espalier_runtime.tables import write_parts
from espalier_sdk import ArtifactRef, Choice
from espalier_training.export import export
from espalier_training.job import TrainJob
from espalier_training.prepare import prepare
from espalier_training.stages import make_job
from espalier_training.train import train

from .made import content
from .test_training_resume import broken

TASK = {"name": "generation", "config": {"prompt": "question", "completion": "better", "max_new_tokens": 8}}
SHORT = {"batch_size": 4, "max_tokens": 32, "learning_rate": 0.003, "epochs": 3}
LORA = {"name": "lora", "config": {"rank": 2, "dropout": 0.0}}
FAST = SHORT | {"learning_rate": 0.03}  # so small an adapter moves the output little
DPO = {"name": "dpo", "config": {"rejected": "worse"}}
KTO = {"name": "kto", "config": {"label": "liked"}}


def candidate(strategy: Any, **more: Any) -> dict[str, Any]:
    return {"strategy": strategy, "training": SHORT, "where": {"cpus_per_worker": 1}} | more


SPEC = {
    "name": "pairs",
    "objective": {"task": TASK, "metric": "chrf"},
    "data": {"pairs": {"sources": ["files"]}},
    "candidates": {
        "sft": candidate(
            {"name": "from-scratch", "config": {"family": "llama", "layers": 1, "hidden_size": 32, "heads": 2}}
        ),
        "adapted": candidate("peft", base={"from": "sft"}, peft=LORA),
        "copied": candidate("full-finetune", base={"from": "sft"}, learner=DPO),
        "off": candidate("peft", base={"from": "sft"}, peft=LORA, learner=DPO, training=FAST),
        "stacked": candidate("peft", base={"from": "adapted"}, peft=LORA, learner=DPO, training=FAST),
        "thumbs": candidate("peft", base={"from": "sft"}, peft=LORA, learner=KTO, training=FAST),
        "whole": candidate("full-finetune", base={"from": "adapted"}, learner=DPO),
    },
}
ROWS = [
    {
        "question": f"what is {place}",
        "better": f"it is {place % 4} sir",
        "worse": f"no {place % 3}",
        "liked": place % 2 == 0,
    }
    for place in range(16)
]


class Chain:
    """Trains candidates in their order, as the pipeline does, without Ray."""

    def __init__(self, folder: Path) -> None:
        self.store = Store.open(str(folder / "store"))
        self.plugins = Plugins()
        self.place = Workplace(Spec.model_validate(SPEC), self.store, folder / "home", self.plugins, Session())
        task = self.plugins.load("espalier.tasks", Choice(**TASK))
        attempt = self.store.begin("0" * 64)
        table = pa.Table.from_pylist(ROWS)
        for split, rows in {"train": table, "validation": table.slice(0, 4), "test": table.slice(4, 4)}.items():
            write_parts([rows], attempt.folder / split)
        state = {"task": task.finish(task.observe(table)).model_dump(mode="json"), "transforms": []}
        (attempt.folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
        self.dataset = attempt.publish(kind="dataset", name="pairs", what={"task": TASK}).ref()
        self.jobs: dict[str, TrainJob] = {}
        self.metrics: dict[str, dict[str, Any]] = {}
        self._models: dict[str, ArtifactRef] = {}

    def model(self, name: str) -> ArtifactRef:
        if name not in self._models:
            base = self.place.spec.candidates[name].base
            before = self.model(base.from_) if base else None  # type: ignore[union-attr]

            def run(job: Job) -> dict[str, Any]:
                request = prepare_request(job.spec, name, self.dataset, before, job.plugins)
                self.jobs[name] = make_job(job.spec, name, job, job.make(request, prepare).ref)
                self.metrics[name] = train(self.jobs[name], out=job.out)
                return self.metrics[name]

            inputs = {"dataset": self.dataset} | ({"base": before} if before else {})
            manifest, _ = perform(train_request(self.place.spec, name, inputs, self.plugins), run, self.place)
            self._models[name] = manifest.ref()
        return self._models[name]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    torch.set_num_threads(1)
    return Chain(tmp_path_factory.mktemp("pairs"))


def series(metrics: dict[str, Any], key: str) -> list[float]:
    return [entry[key] for entry in metrics["history"] if key in entry]


@pytest.mark.parametrize("name", ["copied", "off", "stacked", "whole"])
def test_a_model_learns_which_answers_are_better(chain: Chain, name: str) -> None:
    """The loss starts at log 2, where model and reference are the same, and falls."""
    chain.model(name)
    metrics = chain.metrics[name]
    assert series(metrics, "loss")[0] == pytest.approx(0.6931, abs=1e-3)
    assert series(metrics, "rewards/margins")[0] == pytest.approx(0.0, abs=1e-3)
    assert series(metrics, "rewards/margins")[-1] > 0.1
    assert metrics["validation_loss"] < 0.65
    assert series(metrics, "eval_rewards/accuracies")[-1] == 1.0


def test_a_model_learns_from_thumbs(chain: Chain) -> None:
    """The loss starts at 1/2, where nothing has moved from the reference, and falls."""
    chain.model("thumbs")
    losses = series(chain.metrics["thumbs"], "loss")
    assert losses[0] == pytest.approx(0.5, abs=1e-3)
    assert losses[-1] < 0.49
    assert series(chain.metrics["thumbs"], "kl")[0] == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("name", ["copied", "off", "thumbs"])
def test_broken_off_it_goes_on_to_the_same_bytes(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    chain.model(name)
    job = replace(chain.jobs[name], checkpoints=None, checkpoint_steps=3)  # 12 steps, 4 in an epoch
    train(job, out=tmp_path / "unbroken")
    resumable = replace(job, checkpoints=str(tmp_path / "checkpoints"))
    broken(resumable, 7, monkeypatch, out=tmp_path / "nothing")
    metrics = train(resumable, out=tmp_path / "resumed")
    assert (metrics["resumed_at"], metrics["steps"]) == (6, 12)
    assert content(tmp_path / "resumed") == content(tmp_path / "unbroken")


def test_an_adapter_on_an_adapter_answers_as_its_merged_export(chain: Chain, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ref = chain.model("stacked")
    export(chain.store.open_artifact(ref), chain.store, tmp_path / "plain", merged=True)
    asked = pa.Table.from_pylist(ROWS[:3])
    opened = open_model(chain.store, ref, chain.plugins)
    found = opened.predict(asked).column("nll").to_pylist()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    assert AutoTokenizer.from_pretrained(tmp_path / "plain").chat_template
    encoded = opened.task.encode(asked, state=opened.state, tokenizer=opened.tokenizer, budget=opened.budget)
    for nll, row in zip(found, encoded.to_pylist(), strict=True):
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        with torch.no_grad():
            mean = model(input_ids=ids, labels=labels).loss.item()
        assert nll == pytest.approx(mean * int((labels[:, 1:] != -100).sum()), rel=1e-4)
    plain = open_model(chain.store, chain.model("adapted"), chain.plugins).predict(asked).column("nll").to_pylist()
    assert max(abs(one - other) for one, other in zip(plain, found, strict=True)) > 0.01
