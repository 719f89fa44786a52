"""Models as plain Hugging Face folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import espalier_sdk.heads
import peft
import pyarrow as pa
import pytest
import torch
import transformers
from espalier_runtime.card import read_card
from espalier_runtime.opening import CARD, open_model
from espalier_sdk import Head, SpecError
from espalier_sdk.heads import scale_of
from espalier_training.export import export, opens, traits_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from .made import SPEC, TASK, TINY, WORDS, Made, adapt, content, make, rows, train_alone


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch.set_num_threads(1)
    return make(tmp_path_factory.mktemp("export"))


def scores(folder: Path, texts: list[str]) -> torch.Tensor:
    """Returns what transformers alone answers."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(texts, return_tensors="pt", padding=True)
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        return model(**inputs).logits.softmax(-1)


@pytest.mark.parametrize("adapted", [False, True], ids=["whole", "adapter merged"])
def test_transformers_alone_opens_it_and_answers_the_same(made: Made, tmp_path: Path, adapted: bool) -> None:
    store = made.place.store
    ref = adapt(made)[1].ref() if adapted else made.model
    files = export(store.open_artifact(ref), store, tmp_path / "plain", merged=True)
    assert CARD not in files
    assert not [name for name in files if name.startswith("adapter_")]
    asked = rows(6, start=90).select(["message"])
    expected = open_model(store, ref, made.place.plugins).predict(asked).column("scores").to_pylist()
    found = scores(tmp_path / "plain", asked.column("message").to_pylist())
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)
    labels = AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain").config.id2label
    assert list(labels.values()) == sorted(WORDS)


def test_updates_of_weights_that_are_kept_transposed_are_merged_as_they_were_trained(tmp_path: Path) -> None:
    sizes = {**SPEC["candidates"]["scratch"]["strategy"]["config"], "family": "gpt2", "vocabulary_size": 300}
    adapted = SPEC["candidates"]["adapted"]
    candidates = {
        "scratch": SPEC["candidates"]["scratch"] | {"strategy": {"name": "from-scratch", "config": sizes}},
        "plain": dict(adapted),
        "begun": adapted | {"peft": {"name": "lora", "config": {"rank": 2, "start": "pissa"}}},
    }
    for one in candidates.values():
        one["training"] = one["training"] | {"max_tokens": 24}  # no text is cut
    splits = {"train": rows(48), "validation": rows(6, start=90), "test": rows(6, start=96)}
    asked = rows(6, start=90).select(["message"])
    before = None
    for name, made in train_alone(tmp_path, TASK, splits, candidates).items():
        opened = open_model(made.place.store, made.model, made.place.plugins)
        expected = torch.tensor(opened.predict(asked).column("scores").to_pylist())
        if before is None:
            before = expected
            continue
        assert (expected - before).abs().max() > 0.01
        export(made.place.store.open_artifact(made.model), made.place.store, tmp_path / name, merged=True)
        found = scores(tmp_path / name, asked.column("message").to_pylist())
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_an_adapter_that_is_not_merged_stays_one(made: Made, tmp_path: Path) -> None:
    store = made.place.store
    files = export(store.open_artifact(adapt(made)[1].ref()), store, tmp_path / "adapter", merged=False)
    assert "adapter_model.safetensors" in files
    assert "model.safetensors" not in files


def test_a_folder_that_holds_something_is_refused_and_left_as_it_was(made: Made, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SpecError, match="is not empty"):
        export(made.place.store.open_artifact(made.model), made.place.store, tmp_path, merged=False)
    assert set(content(tmp_path)) == {"mine.txt"}


def python_of(made: Made, out: Path, *, merged: bool = False) -> str | None:
    """Exports a model and returns the Python that is said to open it."""
    opened = made.place.store.open_artifact(made.model)
    export(opened, made.place.store, out, merged=merged)
    card = read_card(opened.folder)
    return opens(Head(**card["head"]), None if merged else traits_of(card, made.place.plugins), out)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """A model of each kind of head, and an adapter."""
    torch.set_num_threads(1)
    questions = {"question": "who?", "context": "ada wins", "answers": [{"text": "ada", "start": 0}]}
    tags = {"words": ["ada", "wins"], "tags": ["B-PER", "O"], "message": "ada wins", "queue": "a"}
    split = pa.Table.from_pylist([questions | tags, questions | tags | {"queue": "b"}] * 4)
    training = {"max_steps": 1, "batch_size": 4, "max_tokens": 16}

    def one(name: str, config: dict[str, Any], learner: str = "supervised", family: str = "bert") -> dict[str, Any]:
        return {
            "strategy": {"name": "from-scratch", "config": TINY | {"family": family, "vocabulary_size": 300}},
            "task": {"name": name, "config": config},
            "learner": learner,
            "training": training,
            "where": {"cpus_per_worker": 1},
        }

    words = {"text": "message", "target": "queue"}
    candidates = {
        "classes": one("classification", words),
        "tags": one("token-classification", {"tokens": "words", "tags": "tags"}),
        "answers": one("question-answering", {}),
        "gaps": one("fill-mask", {"text": "message"}, learner="masked"),
        "texts": one("generation", {"text": "message"}, learner="causal", family="llama"),
    }
    for name, method in (("adapted", "lora"), ("beside", "bottleneck")):
        candidates[name] = one("classification", words) | {
            "strategy": "peft",
            "base": {"from": "classes"},
            "peft": method,
        }
    task = {"name": "classification", "config": words}
    return train_alone(tmp_path_factory.mktemp("kinds"), task, {"train": split, "validation": split}, candidates)


@pytest.mark.parametrize(
    ("name", "asked"),
    [("classes", "ada wins"), ("tags", "ada wins"), ("gaps", "ada [MASK]"), ("texts", "ada")],
)
def test_the_pipeline_that_is_named_answers(kinds: dict[str, Made], tmp_path: Path, name: str, asked: str) -> None:
    told = python_of(kinds[name], tmp_path / "plain")
    assert told is not None
    answer = eval(told, {"transformers": transformers})(asked)
    assert isinstance(answer, list)
    assert answer


def test_a_model_whose_answers_stand_in_a_text_opens_by_its_class(kinds: dict[str, Made], tmp_path: Path) -> None:
    told = python_of(kinds["answers"], tmp_path / "plain")
    assert told is not None
    model = eval(told, {"transformers": transformers})
    assert model(input_ids=torch.tensor([[1, 2, 3]])).start_logits.shape == (1, 3)


def test_an_adapter_that_peft_opens_answers_alike_on_its_base(kinds: dict[str, Made], tmp_path: Path) -> None:
    adapted = kinds["adapted"]
    told = python_of(adapted, tmp_path / "adapter")
    python_of(kinds["classes"], tmp_path / "base")
    assert told is not None
    known = {"transformers": transformers, "peft": peft, "BASE": str(tmp_path / "base")}
    model = eval(told, known).eval()
    whole = eval(str(python_of(adapted, tmp_path / "whole", merged=True)), known).model
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, whole(input_ids=ids).logits, atol=1e-5, rtol=0)


def test_an_adapter_in_a_format_of_its_own_opens_with_espalier_alone(kinds: dict[str, Made], tmp_path: Path) -> None:
    assert python_of(kinds["beside"], tmp_path / "adapter") is None


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """Models that answer a number: whole, adapted, and with side columns."""
    torch.set_num_threads(1)
    values = [40.0, 70.0, 90.0, 60.0]
    split = pa.Table.from_pylist(
        [{"message": f"ada wins {value}", "value": value, "age": value, "side": [value / 100]} for value in values] * 2
    )
    task = {"name": "regression", "config": {"text": "message", "target": "value"}}
    beside = {"name": "regression", "config": {**task["config"], "numeric": ["age"]}}
    common = {"training": {"max_steps": 1, "batch_size": 4, "max_tokens": 16}, "where": {"cpus_per_worker": 1}}
    scratch = {"strategy": {"name": "from-scratch", "config": TINY | {"vocabulary_size": 300}}}
    candidates = {
        "whole": common | scratch,
        "adapted": common | {"strategy": "peft", "base": {"from": "whole"}, "peft": "lora"},
        "beside": common | scratch | {"task": beside},
    }
    return train_alone(tmp_path_factory.mktemp("numbers"), task, {"train": split, "validation": split}, candidates)


@pytest.mark.parametrize(
    ("name", "merged"), [("whole", False), ("adapted", False), ("adapted", True), ("beside", False)]
)
def test_a_number_of_the_exported_model_times_the_scale_is_the_value(
    numbers: dict[str, Made], tmp_path: Path, name: str, merged: bool
) -> None:
    made = numbers[name]
    told = python_of(made, tmp_path / "plain", merged=merged)
    python_of(numbers["whole"], tmp_path / "base")
    card = read_card(made.place.store.open_artifact(made.model).folder)
    scale = scale_of(Head(**card["head"]), card["state"])
    assert told is not None
    assert scale is not None
    if name != "adapted" or merged:
        assert json.loads((tmp_path / "plain" / "config.json").read_text())["espalier_target"] == scale
    known = {"transformers": transformers, "peft": peft, "espalier_sdk": espalier_sdk, "Path": Path, "Head": Head}
    model = eval(told, {**known, "BASE": str(tmp_path / "base")})
    texts = ["ada wins 40.0", "ada wins 90.0"]
    if isinstance(model, transformers.Pipeline):
        answers = [one["score"] for one in model(texts)]
    else:
        inputs = AutoTokenizer.from_pretrained(tmp_path / "plain")(texts, return_tensors="pt", padding=True)
        inputs |= {"side": torch.tensor([[0.4], [0.9]])} if name == "beside" else {}
        with torch.no_grad():
            answers = model.eval()(**inputs).logits.ravel().tolist()
    asked = pa.table({"message": texts, "age": [40.0, 90.0], "side": [[0.4], [0.9]]})
    expected = open_model(made.place.store, made.model, made.place.plugins).predict(asked)
    found = [answer * scale["deviation"] + scale["mean"] for answer in answers]
    assert found == pytest.approx(expected.column("prediction").to_pylist(), abs=1e-3)


def test_a_model_that_answers_no_number_of_a_target_has_no_scale(kinds: dict[str, Made]) -> None:
    for made in kinds.values():
        card = read_card(made.place.store.open_artifact(made.model).folder)
        head = Head(**card["head"])
        assert scale_of(head, card["state"]) is None
        assert scale_of(replace(head, problem="regression"), card["state"]) is None  # as a reward model's
