"""From answers to a reward model to a policy: what each learns, whom it asks, and how it goes on when broken off."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from espalier_metrics import PreferenceAccuracy
from espalier_runtime.opening import open_model
from espalier_runtime.request import train_request
from espalier_runtime.tables import iter_parts
from espalier_sdk import Choice, SpecError
from espalier_training.auxiliaries import open_auxiliaries
from espalier_training.train import train

from .made import Made, content, train_alone
from .test_training_resume import broken

TASK = {
    "name": "generation",
    "config": {"prompt": "question", "completion": "better", "rejected": "worse", "max_new_tokens": 6},
}
LORA = {"name": "lora", "config": {"rank": 4, "dropout": 0.0}}
SCRATCH = {"name": "from-scratch", "config": {"family": "llama", "layers": 1, "hidden_size": 32, "heads": 2}}
WORSE = {"rejected": "worse"}


def candidate(strategy: Any, *, rate: float, epochs: float, **more: Any) -> dict[str, Any]:
    settings = {"batch_size": 8, "max_tokens": 24, "learning_rate": rate, "epochs": epochs, "validations": 1}
    return {"strategy": strategy, "training": settings | {"dtype": "float32"}, "where": {"cpus_per_worker": 1}} | more


def policy(name: str, epochs: float, **config: Any) -> dict[str, Any]:
    return candidate(
        "full-finetune",
        rate=0.003,
        epochs=epochs,
        base={"from": "sft"},
        learner={"name": name, "config": {"answers": 4, "beta": 0.01, **config}},
        auxiliaries={"reward": {"from": "rm"}},
    )


ADAPTED = {"strategy": "peft", "peft": LORA}
CANDIDATES: dict[str, Any] = {
    "sft": candidate(SCRATCH, rate=0.01, epochs=12),
    "rm": candidate(
        "full-finetune", rate=0.005, epochs=8, base={"from": "sft"}, learner={"name": "reward", "config": WORSE}
    ),
    "rm-adapted": candidate(
        "peft", rate=0.02, epochs=6, base={"from": "sft"}, peft=LORA, learner={"name": "reward", "config": WORSE}
    ),
    "grpo": policy("grpo", 4),
    "rloo": policy("rloo", 4),
    "off": policy("grpo", 1, loss="dr_grpo") | ADAPTED | {"auxiliaries": {"reward": {"from": "rm-adapted"}}},
}
ROWS = [
    {
        "question": f"what is {place}",
        "better": f"it is {place % 4} sir" if place % 2 else f"yes {place % 3} sir",
        "worse": f"no {place % 5} no" if place % 2 else "no no no",
    }
    for place in range(16)
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    torch.set_num_threads(1)
    table = pa.Table.from_pylist(ROWS)
    splits = {"train": table, "validation": table.slice(0, 4), "test": table.slice(4, 4)}
    return train_alone(tmp_path_factory.mktemp("policies"), TASK, splits, CANDIDATES)


def series(made: Made, key: str) -> list[float]:
    return [entry[key] for entry in made.metrics["history"] if key in entry]


@pytest.mark.parametrize("name", ["rm", "rm-adapted"])
def test_a_reward_model_rates_better_answers_higher_and_says_how_good_an_answer_is(
    made: dict[str, Made], name: str
) -> None:
    one = made[name]
    assert series(one, "loss")[0] == pytest.approx(0.6931, abs=0.02)  # log 2: both answers are worth nearly the same
    assert series(one, "eval_accuracy") == [1.0]
    opened = open_model(one.place.store, one.model, one.place.plugins)
    rated = opened.predict(pa.Table.from_pylist(ROWS))
    assert PreferenceAccuracy(PreferenceAccuracy.Config()).values(rated) == {"preference_accuracy": 1.0}
    margins = [two["rating"] - two["other_rating"] for two in rated.to_pylist()[:4]]  # those that validate
    assert sum(margins) / 4 == pytest.approx(series(one, "eval_margin")[0], abs=1e-4)


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_a_policy_is_rewarded_higher_than_what_it_starts_from(made: dict[str, Made], name: str) -> None:
    rewards = series(made[name], "reward")
    assert sum(rewards[-2:]) / 2 > sum(rewards[:2]) / 2 + 0.1
    assert series(made[name], "kl")[0] == pytest.approx(0.0, abs=1e-6)
    assert series(made[name], "kl")[-1] > 0.01
    for key in ("entropy", "answer_tokens", "eval_reward", "eval_kl"):
        assert series(made[name], key), key
    assert not series(made[name], "eval_loss")
    assert made[name].metrics["validation_loss"] is None


@pytest.mark.parametrize("name", ["rm", "grpo", "rloo", "off"])
def test_broken_off_it_goes_on_to_the_same_bytes(
    made: dict[str, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Also where a validation draws answers in between: what is drawn depends on seed, step and questions alone."""
    settings = made[name].job.training | {"max_steps": 4, "validations": 4}
    job = replace(made[name].job, checkpoints=None, checkpoint_steps=2, training=settings)
    train(replace(job, training=settings | {"validations": 0}), out=tmp_path / "unbroken")
    resumable = replace(job, checkpoints=str(tmp_path / "checkpoints"))
    broken(resumable, 3, monkeypatch, out=tmp_path / "nothing")
    assert train(resumable, out=tmp_path / "resumed")["resumed_at"] == 2
    assert content(tmp_path / "resumed") == content(tmp_path / "unbroken")


def test_a_policy_of_another_seed_draws_other_answers(made: dict[str, Made], tmp_path: Path) -> None:
    job = replace(made["grpo"].job, checkpoints=None)
    seen = []
    for seed in (0, 1):
        settings = job.training | {"max_steps": 1, "validations": 0, "seed": seed}
        seen.append(train(replace(job, training=settings), out=tmp_path / str(seed))["history"][0]["reward"])
    assert seen[0] != seen[1]


def test_answers_are_drawn_micro_batch_by_micro_batch(made: dict[str, Made], tmp_path: Path) -> None:
    job = replace(made["grpo"].job, checkpoints=None, micro_batch_size=2, accumulation=4)
    metrics = train(replace(job, training=job.training | {"max_steps": 6, "validations": 0}), out=tmp_path)
    rewards = [entry["reward"] for entry in metrics["history"]]
    assert sum(rewards[-2:]) / 2 > rewards[0] + 0.1


def test_the_request_of_a_policy_names_its_reward_model(made: dict[str, Made]) -> None:
    place = made["grpo"].place
    inputs = {"dataset": made["grpo"].dataset, "base": made["sft"].model, "reward": made["rm"].model}
    request = train_request(place.spec, "grpo", inputs, place.plugins)
    assert place.store.find_request(request.digest()) == made["grpo"].model
    other = train_request(place.spec, "grpo", inputs | {"reward": made["rm-adapted"].model}, place.plugins)
    assert other.digest() != request.digest()
    assert request.components()["inputs"]["reward"] == str(made["rm"].model)


def test_a_model_that_does_not_rate_answers_is_refused(made: dict[str, Made], tmp_path: Path) -> None:
    job = replace(made["grpo"].job, checkpoints=None, auxiliaries={"reward": str(made["sft"].model)})
    with pytest.raises(
        SpecError, match="sft builds causal-lm, the learner grpo asks sequence-classification"
    ) as refused:
        train(job, out=tmp_path)
    assert refused.value.problems[0].field == "candidates.grpo.auxiliaries.reward.from"


def judge_of(made: Made, scratch: Path, dtype: str) -> Any:
    job, place = replace(made.job, training=made.job.training | {"dtype": dtype}), made.place
    learner = place.plugins.load("espalier.learners", Choice(**job.learner))
    return open_auxiliaries(job, learner, place.store, place.plugins, scratch=scratch)["reward"][0]


def test_a_reward_model_lies_where_the_worker_computes(
    made: dict[str, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espalier_training.auxiliaries.own_device", lambda: torch.device("meta"))
    judge = judge_of(made["grpo"], tmp_path, "float32")
    assert {one.device.type for one in (*judge.parameters(), *judge.buffers())} == {"meta"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_reward_model_computes_as_training_does(made: dict[str, Made], tmp_path: Path, dtype: str) -> None:
    judge = judge_of(made["grpo"], tmp_path, dtype)
    assert judge(torch.tensor([[5, 6]])).logits.dtype == getattr(torch, dtype)
    assert {one.dtype for one in judge.parameters()} == {torch.float32}


def test_answers_to_one_question_are_compared_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large split is read in blocks; here each row is one."""
    monkeypatch.setattr("espalier_training.prepare.iter_parts", partial(iter_parts, rows=1))
    rated = [{**row, "stars": 5} for row in ROWS] + [{**row, "better": row["worse"], "stars": 1} for row in ROWS]
    split, short = pa.Table.from_pylist(rated), {"rate": 0.01, "epochs": 0.1}
    rating = {"name": "reward", "config": {"rating": "stars"}}
    candidates = {
        "sft": candidate(SCRATCH, **short),
        "rm": candidate("full-finetune", base={"from": "sft"}, learner=rating, **short),
    }
    made = train_alone(tmp_path, TASK, {"train": split, "validation": split}, candidates)["rm"]
    assert made.metrics["examples"] == len({row["question"] for row in ROWS})
