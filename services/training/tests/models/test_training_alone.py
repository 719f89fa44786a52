"""Preparing and training from end to end in this one process, without Ray, on a dataset of 48 rows."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from espalier_runtime.job import perform
from espalier_runtime.opening import CARD, open_model, read_card
from espalier_runtime.plugins import Plugins
from espalier_runtime.request import prepare_request
from espalier_runtime.specs import Spec
from espalier_runtime.tables import read_parts
from espalier_sdk import Choice, SpecError, TrainingFailed
from espalier_training.diverging import Watch
from espalier_training.engine import Setting, arguments
from espalier_training.job import TrainJob
from espalier_training.prepare import prepare
from espalier_training.shortage import remedy
from espalier_training.train import train

from .made import SPEC, WORDS, Made, adapt, content, make, make_dataset, rows, train_alone


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch.set_num_threads(1)
    return make(tmp_path_factory.mktemp("alone"))


def test_the_model_is_a_hugging_face_folder_with_a_card_and_no_pickle(made: Made) -> None:
    folder = made.place.store.open_artifact(made.model).folder
    names = set(content(folder))
    assert {"config.json", "model.safetensors", "tokenizer.json", CARD} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    card = read_card(folder)
    assert card["state"]["labels"] == sorted(WORDS)
    assert card["budget"] == {"max_tokens": 16, "padding_side": "right"}
    assert (card["base"], card["peft"]) == (None, None)


def test_what_was_measured_is_what_was_done(made: Made) -> None:
    metrics = made.metrics
    assert (metrics["steps"], metrics["examples"]) == (12, 48)
    assert metrics["trainable_parameters"] == metrics["parameters"] > 0
    assert metrics["size_bytes"] == sum(map(len, content(made.place.store.open_artifact(made.model).folder).values()))
    assert metrics["peak_memory_bytes"] > 50 * 2**20
    losses = [entry["loss"] for entry in metrics["history"] if "loss" in entry]
    assert len(losses) == 12
    assert sum(losses[-3:]) < sum(losses[:3])  # a batch's loss depends on which examples it holds


def test_prepared_rows_are_encoded_in_order_and_within_the_budget(made: Made) -> None:
    folder = made.place.store.open_artifact(made.prepared).folder
    table = read_parts(folder / "train")
    assert table.column("target").to_pylist() == rows(48).column("queue").to_pylist()
    assert table.column("labels").to_pylist() == [
        sorted(WORDS).index(one) for one in table.column("target").to_pylist()
    ]
    assert max(map(len, table.column("input_ids").to_pylist())) <= 16
    assert json.loads((folder / "budget.json").read_text()) == {"max_tokens": 16, "padding_side": "right"}
    tokens = sum(map(len, table.column("input_ids").to_pylist()))
    assert made.place.store.manifest(made.prepared).metrics["train"] == {"rows": 48, "tokens": tokens}


def test_the_same_in_another_folder_is_the_same_artifact(made: Made, tmp_path: Path) -> None:
    other = make(tmp_path)
    assert (other.dataset, other.prepared, other.model) == (made.dataset, made.prepared, made.model)


def test_the_same_job_gives_equal_bytes_and_another_seed_gives_others(made: Made, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        train(replace(made.job, training=made.job.training | {"seed": seed}), out=tmp_path / name)
    one, two, three = (content(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two == content(made.place.store.open_artifact(made.model).folder)
    assert one.keys() == three.keys()
    assert one["model.safetensors"] != three["model.safetensors"]
    assert one["tokenizer.json"] == three["tokenizer.json"]


def test_no_path_of_this_machine_is_in_any_file_of_the_model(made: Made) -> None:
    files = content(made.place.store.open_artifact(made.model).folder)
    assert files
    places = {str(made.place.home.parent), str(Path.cwd()), str(Path.home()), str(Path(__file__).parents[4])} - {"/"}
    for name, data in files.items():
        assert not [place for place in places if place.encode() in data], name


def test_a_loss_that_becomes_nan_ends_training_and_names_the_step(made: Made, tmp_path: Path) -> None:
    wild = replace(made.job, training=made.job.training | {"learning_rate": 1e30, "warmup": 0.0})
    with pytest.raises(TrainingFailed, match=r"the loss became (nan|inf) at step \d+") as failed:
        train(wild, out=tmp_path)
    assert failed.value.problems[0].code == "diverged"
    assert "learning_rate" in (failed.value.problems[0].remedy or "")
    assert not list(tmp_path.iterdir())


def test_training_ends_at_the_step_whose_loss_is_nan_and_not_at_the_last_one(made: Made, tmp_path: Path) -> None:
    wild = replace(made.job, training=made.job.training | {"learning_rate": 1e30, "warmup": 0.0, "max_steps": 40})
    with pytest.raises(TrainingFailed) as failed:
        train(wild, out=tmp_path)
    found = re.search(r"at step (\d+), on the prepared rows ([\d, ]+) of", failed.value.problems[0].message)
    assert found
    assert int(found[1]) < 10
    named = [int(row) for row in found[2].split(", ")]
    assert len(set(named)) == 8
    assert max(named) <= 48


def test_a_loss_that_is_read_later_names_the_same_step_and_rows(made: Made, tmp_path: Path, monkeypatch: Any) -> None:
    """As on a GPU, which is not waited for: here the loss is logged at every fourth step."""
    from espalier_training import diverging

    settings = made.job.training | {"learning_rate": 1e30, "warmup": 0.02, "max_steps": 200, "validations": 0}
    told = []
    for name, at_hand in (("now", True), ("later", False)):
        monkeypatch.setattr(diverging, "is_at_hand", lambda value, at_hand=at_hand: at_hand)
        with pytest.raises(TrainingFailed) as failed:
            train(replace(made.job, training=settings), out=tmp_path / name)
        told.append(re.sub(r"became \S+", "became", failed.value.problems[0].message))
    now, later = told
    assert later == now
    assert int(re.search(r"at step (\d+), on the prepared rows", now)[1]) % 4  # type: ignore[index]


@pytest.mark.parametrize("at_hand", [True, False])
def test_a_gradient_that_is_no_number_names_the_rows_whose_loss_was_one(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_hand: bool
) -> None:
    """Where nothing is waited for, the step is named too, and not that of the loss that it spoiled."""
    from espalier_training import diverging

    monkeypatch.setattr(diverging, "is_at_hand", lambda _: at_hand)
    learner = type(made.place.plugins.load("espalier.learners", Choice(**made.job.learner)))
    usual, passes = learner.inputs, iter(range(1, 100))

    def inputs(self: Any, parts: Any) -> Any:
        weight = next(parameter for name, parameter in parts.model.named_parameters() if "classifier" in name)
        weight.register_hook(lambda gradient: gradient * torch.nan if next(passes) == 3 else gradient)
        return usual(self, parts)

    monkeypatch.setattr(learner, "inputs", inputs)
    with pytest.raises(TrainingFailed, match=r"the norm of the gradient became nan at step 3, on the prepared rows \d"):
        train(replace(made.job, training=made.job.training | {"validations": 0}), out=tmp_path)


def test_more_than_one_gpu_for_a_worker_is_refused_before_it_starts(tmp_path: Path) -> None:
    """Transformers would spread each batch over them, and so make it larger than was asked."""
    candidates = {"scratch": SPEC["candidates"]["scratch"] | {"where": {"cpus_per_worker": 1, "gpus_per_worker": 2}}}
    task = SPEC["objective"]["task"]
    with pytest.raises(SpecError, match="a worker trains on one GPU") as refused:
        train_alone(tmp_path, task, {"train": rows(8), "validation": rows(6, start=90)}, candidates)
    assert refused.value.problems[0].field == "candidates.scratch.where.gpus_per_worker"


def test_tokens_per_second_count_each_example_once_per_epoch(tmp_path: Path) -> None:
    splits = {"train": rows(20), "validation": rows(6, start=90)}  # in batches of 8: the last has four
    made = train_alone(tmp_path, SPEC["objective"]["task"], splits, {"scratch": SPEC["candidates"]["scratch"]})[
        "scratch"
    ]
    read = made.place.store.manifest(made.prepared).metrics["train"]["tokens"]
    assert made.metrics["steps"] == 6
    counted = made.metrics["tokens_per_second"] * made.metrics["train_seconds"]
    assert counted == pytest.approx(2 * read, rel=0.02)


@pytest.mark.parametrize(("workers", "answers"), [(1, True), (2, False)])
def test_an_error_of_one_of_several_workers_is_raised_so_that_the_others_end(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, answers: bool
) -> None:
    """They would wait for it until their process group gives up."""
    import ray.train
    from espalier_training import on_ray

    def fails(*_: Any, **__: Any) -> None:
        raise TrainingFailed("the loss became nan")

    world = SimpleNamespace(get_world_size=lambda: workers, get_world_rank=lambda: workers - 1)
    monkeypatch.setattr(ray.train, "get_context", lambda: world)
    monkeypatch.setattr("espalier_training.train.train", fails)
    config = asdict(replace(made.job, out=str(tmp_path)))
    if answers:
        assert isinstance(on_ray._worker(config)["failed"], TrainingFailed)
    else:
        with pytest.raises(TrainingFailed, match="became nan"):
            on_ray._worker(config)


def test_the_rows_of_a_step_are_those_that_it_was_shown(made: Made, tmp_path: Path, monkeypatch: Any) -> None:
    """Each pass is told with the rows that the order says, in both epochs, and the last batch of an epoch."""
    prepared = read_parts(made.place.store.open_artifact(made.prepared).folder / "train").column("labels").to_pylist()
    said: list[list[int]] = []
    shown: list[list[int]] = []
    monkeypatch.setattr(
        Watch, "see", lambda watch, name, _, step: said.append(watch._rows(step)) if name == "loss" else None
    )
    learner = type(made.place.plugins.load("espalier.learners", Choice(**made.job.learner)))
    collate = learner.inputs

    def inputs(self: Any, parts: Any) -> dict[str, Any]:
        pad = collate(self, parts)["data_collator"]

        def noted(examples: list[Any]) -> Any:
            if torch.is_grad_enabled():
                shown.append([int(one["labels"]) for one in examples])
            return pad(examples)

        return {"data_collator": noted}

    monkeypatch.setattr(learner, "inputs", inputs)
    train(replace(made.job, training=made.job.training | {"validations": 0}), out=tmp_path)
    assert len(said) == 12
    assert [[prepared[row] for row in rows] for rows in said] == shown
    assert sorted(row for rows in said[:6] for row in rows) == list(range(48))


def test_memory_that_runs_out_names_what_was_asked_and_what_to_change(
    made: Made, tmp_path: Path, monkeypatch: Any
) -> None:
    from espalier_training import train as module
    from transformers import TrainerCallback

    class Greedy(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            torch.empty(2**50, dtype=torch.uint8)

    monkeypatch.setattr(module, "guard", Greedy)
    with pytest.raises(TrainingFailed, match=r"8 examples of up to 16 tokens asked for 1048576\.0 GiB, with") as failed:
        train(made.job, out=tmp_path)
    (problem,) = failed.value.problems
    assert problem.code == "out_of_memory"
    assert problem.field == "candidates.scratch.where"
    assert str(problem.remedy).startswith("where.micro_batch_size: 4 (same batch, in more passes); or where.gradient_")
    assert not list(tmp_path.iterdir())


def test_what_a_method_cannot_train_with_is_no_way_to_need_less_memory(made: Made) -> None:
    plain, lora, prefix = (
        remedy(replace(made.job, peft=peft)) for peft in (None, {"name": "lora"}, {"name": "prefix-tuning"})
    )
    assert lora == plain
    assert "gradient_checkpointing" in plain
    assert prefix == plain.replace("where.gradient_checkpointing: true (a third slower); or ", "")


def test_weights_that_the_last_update_spoiled_are_refused(made: Made, tmp_path: Path) -> None:
    """The only step's loss is that of the start weights: no loss tells of what its update did."""
    wild = replace(made.job, training=made.job.training | {"learning_rate": 1e39, "warmup": 0.0, "max_steps": 1})
    with pytest.raises(TrainingFailed, match="weights that are no numbers after step 1"):
        train(wild, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_zero_cannot_do_is_refused_before_anything_is_opened(made: Made, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="offload all needs zero_stage 3") as refused:
        train(replace(made.job, offload="all", store=str(tmp_path / "absent")), out=tmp_path)
    assert refused.value.problems[0].field == "candidates.scratch.where.offload"


def test_more_tokens_than_the_tokenizer_takes_are_refused_with_the_field(made: Made, tmp_path: Path) -> None:
    scratch = SPEC["candidates"]["scratch"] | {"training": {"max_tokens": 33}}
    spec = Spec.model_validate(SPEC | {"candidates": {"scratch": scratch}})
    place = replace(made.place, spec=spec)
    with pytest.raises(SpecError, match="takes 32 tokens at most") as refused:
        perform(prepare_request(spec, "scratch", made.dataset, None, place.plugins), prepare, place)
    assert refused.value.problems[0].field == "candidates.scratch.training.max_tokens"


def test_text_that_is_stored_as_numbers_is_prepared_as_text(made: Made) -> None:
    numbers = pa.table({"message": pa.array(range(40), pa.int64()), "queue": ["a", "b"] * 20})
    dataset = make_dataset(made.place.store, numbers)
    request = prepare_request(made.place.spec, "scratch", dataset, None, made.place.plugins)
    assert perform(request, prepare, made.place)[0].metrics["train"]["rows"] == 40


def test_a_phase_that_trains_nothing_is_refused_before_the_first_step(tmp_path: Path) -> None:
    config = {**SPEC["candidates"]["scratch"]["strategy"]["config"], "family": "llama", "vocabulary_size": 300}
    candidates = {
        "scratch": SPEC["candidates"]["scratch"] | {"strategy": {"name": "from-scratch", "config": config}},
        "adapted": SPEC["candidates"]["adapted"]
        | {"controls": ["gradual-unfreezing"], "training": {"max_steps": 10, "max_tokens": 16}},
    }
    task = {"name": "generation", "config": {"text": "message"}}
    splits = {"train": rows(48), "validation": rows(6, start=90), "test": rows(6, start=96)}
    with pytest.raises(SpecError, match="no weight is trained from step 0 to step 1 of 10") as refused:
        train_alone(tmp_path, task, splits, candidates)
    (problem,) = refused.value.problems
    assert problem.field == "candidates.adapted.controls"
    assert "remove the control" in str(problem.remedy)


@pytest.fixture(scope="module")
def adapted(made: Made) -> tuple[TrainJob, Any]:
    return adapt(made)


def test_an_adapter_on_another_candidates_model_is_small_opens_and_answers(made: Made, adapted: Any) -> None:
    _, manifest = adapted
    files = content(made.place.store.open_artifact(manifest.ref()).folder)
    assert "adapter_model.safetensors" in files
    assert "model.safetensors" not in files
    assert json.loads(files[CARD])["base"] == str(made.model)
    assert not [name for name, data in files.items() if str(made.place.home.parent).encode() in data]
    assert 0 < manifest.metrics["trainable_parameters"] < 0.1 * manifest.metrics["parameters"]
    opened = open_model(made.place.store, manifest.ref(), made.place.plugins)
    answers = opened.predict(rows(6, start=90).select(["message"]))
    assert set(answers.column("prediction").to_pylist()) <= set(WORDS)
    assert answers.num_rows == 6


def test_examples_longer_than_the_base_has_positions_are_refused(adapted: Any, tmp_path: Path) -> None:
    """Also where the tokenizer says no limit, and where virtual tokens take the places: max_tokens counts them."""
    long = replace(adapted[0], training=adapted[0].training | {"max_tokens": 33})
    with pytest.raises(SpecError, match="max_tokens 33: the model has positions for 32 tokens") as refused:
        train(long, out=tmp_path)
    assert refused.value.problems[0].field == "candidates.adapted.training.max_tokens"


def test_a_peft_method_may_act_after_each_step_while_gradients_are_there(
    adapted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def after_step(self: Any, model: torch.nn.Module, *, step: int, steps: int) -> None:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        seen.append((step, steps, bool(trained) and all(parameter.grad is not None for parameter in trained)))

    method = type(Plugins().load("espalier.peft_methods", Choice(name="lora")))
    monkeypatch.setattr(method, "after_step", after_step)
    train(adapted[0], out=tmp_path)
    assert seen == [(step, 12, True) for step in range(12)]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_rises_in_the_warmup_whatever_the_schedule(made: Made, schedule: str) -> None:
    from transformers import get_scheduler

    job = replace(made.job, training=made.job.training | {"schedule": schedule, "warmup": 0.5})
    setting = Setting(job, *([None] * 6), frozenset(), 8, 1.0, "sequence-classification")  # type: ignore[arg-type]
    told = arguments(setting, stop=8, out=Path("trainer"))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    plan = get_scheduler(
        told["lr_scheduler_type"], optimizer, num_warmup_steps=told["warmup_steps"], num_training_steps=8
    )
    rates = []
    for _ in range(8):
        rates.append(plan.get_last_lr()[0])
        optimizer.step()
        plan.step()
    assert rates[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert (rates[-1] < 1.0) == (schedule != "constant")
