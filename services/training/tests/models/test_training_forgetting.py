"""What training leaves of a base: the sample read by hand, adapters as applied, and where it stands in a training."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from espalier_runtime.plugins import Plugins
from espalier_sdk import Choice, Head, Placement
from espalier_sdk.testing.tiny import Tiny, tiny, write_tokenizer
from espalier_training.forgetting import Recall, agreement
from espalier_training.train import train

from .made import TASK, TINY, Made, rows, train_alone

CLASSES = Head("sequence-classification", outputs=3, problem="single-label")
TEXT = files("espalier_training").joinpath("general.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    found = AutoTokenizer.from_pretrained(folder)
    found.add_tokens(sorted({letter for letter in TEXT.lower() if letter.isalpha()}))  # else every word is [UNK]
    found.model_max_length = 24
    return found


def read(made: Tiny, tokenizer: Any, change: Any, *, virtual_tokens: int = 0) -> dict[str, Any]:
    """Returns the figures of a model that `change` makes of a tiny one."""
    recall = Recall(tokenizer, virtual_tokens=virtual_tokens)
    made.model.resize_token_embeddings(len(tokenizer))  # type: ignore[operator]
    recall.before(made.model, replace(made.blueprint, new_modules=()))
    return recall.after(change(made.model))


def shaken(model: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def test_the_sample_is_sixty_different_texts_and_its_hash_is_told(tokenizer: Any) -> None:
    assert len(set(TEXT.splitlines())) == 60
    found = read(tiny("bert", CLASSES), tokenizer, lambda model: model)
    assert (found["texts"], found["sample"]) == (60, sha256(TEXT.encode()).hexdigest())


def test_the_figures_are_those_of_scipy() -> None:
    from scipy.stats import pearsonr, spearmanr

    chance = np.random.default_rng(0)
    before = chance.normal(size=(12, 8)) + 0.5
    after = before + 0.7 * chance.normal(size=(12, 8))
    pairs = np.triu_indices(12, k=1)
    one, other = (_cosine(each)[pairs] for each in (before, after))
    found = agreement(before, after)
    assert found["rank_correlation"] == pytest.approx(spearmanr(one, other).statistic, abs=1e-12)
    assert found["correlation"] == pytest.approx(pearsonr(one, other).statistic, abs=1e-12)
    assert (found["cosine_before"], found["cosine_after"]) == pytest.approx((one.mean(), other.mean()))


def _cosine(states: np.ndarray) -> np.ndarray:
    from sklearn.metrics.pairwise import cosine_similarity

    return cosine_similarity(states)


def test_a_turned_space_is_the_same_space_and_a_collapsed_one_is_none() -> None:
    chance = np.random.default_rng(0)
    before = chance.normal(size=(12, 8))
    turn, _ = np.linalg.qr(chance.normal(size=(8, 8)))
    assert agreement(before, before @ turn)["correlation"] == pytest.approx(1.0)
    collapsed = agreement(before, np.ones((12, 8)))
    assert (collapsed["rank_correlation"], collapsed["correlation"]) == (0.0, 0.0)
    assert collapsed["cosine_after"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("bert", CLASSES),
        ("bert", Head("masked-lm")),
        ("bert", Head("question-answering")),
        ("bert", Head("sequence-classification", outputs=1, side_width=3, problem="regression")),
        ("llama", CLASSES),
    ],
    ids=["classes", "masked", "spans", "side", "decoder"],
)
def test_a_model_that_did_not_move_forgot_nothing_and_one_that_did_forgot_some(
    tokenizer: Any, family: Any, head: Head
) -> None:
    still = read(tiny(family, head), tokenizer, lambda model: model)
    assert still["measure"] == "similarity"
    assert (still["rank_correlation"], still["correlation"]) == pytest.approx((1.0, 1.0), abs=1e-9)
    assert still["cosine_before"] == still["cosine_after"]
    moved = read(tiny(family, head), tokenizer, shaken)
    assert moved["rank_correlation"] < 0.99
    assert moved["cosine_before"] == still["cosine_before"]


def test_states_are_those_of_the_body_averaged_over_tokens(tokenizer: Any) -> None:
    made = tiny("bert", CLASSES)
    found = read(made, tokenizer, lambda model: model)
    states = []
    for text in TEXT.splitlines():
        ids = torch.tensor([tokenizer(text, truncation=True, max_length=24)["input_ids"]])
        with torch.no_grad():
            states.append(made.model.eval().bert(ids).last_hidden_state[0].mean(dim=0).numpy())  # type: ignore[operator, union-attr]
    cosines = _cosine(np.array(states))[np.triu_indices(60, k=1)]
    assert found["cosine_after"] == pytest.approx(float(cosines.mean()), abs=1e-6)


def test_what_writes_is_measured_by_the_likelihood_of_the_sample(tokenizer: Any) -> None:
    made = tiny("llama", Head("causal-lm"))
    found = read(made, tokenizer, lambda model: model)
    assert found["measure"] == "likelihood"
    total = count = 0.0
    for text in TEXT.splitlines():
        ids = torch.tensor([tokenizer(text, truncation=True, max_length=24)["input_ids"]])
        with torch.no_grad():
            total += float(made.model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert found["perplexity_before"] == found["perplexity_after"] == pytest.approx(np.exp(total / count), rel=1e-5)
    moved = read(tiny("llama", Head("causal-lm")), tokenizer, shaken)
    assert moved["perplexity_after"] != moved["perplexity_before"] == found["perplexity_before"]


def test_a_base_that_could_not_write_is_measured_by_how_it_places_texts(tokenizer: Any) -> None:
    made = tiny("llama", Head("causal-lm"))
    recall = Recall(tokenizer)
    made.model.resize_token_embeddings(len(tokenizer))  # type: ignore[operator]
    recall.before(made.model, replace(made.blueprint, new_modules=("lm_head",)))
    assert recall.after(made.model)["measure"] == "similarity"


@pytest.mark.parametrize(
    ("name", "config", "virtual", "still"),
    [
        ("lora", {"rank": 2}, 0, True),
        ("prompt-tuning", {"tokens": 4}, 4, False),
        ("prefix-tuning", {"tokens": 4}, 4, False),
    ],
)
@pytest.mark.parametrize("head", [CLASSES, Head("causal-lm")], ids=["encoder", "decoder"])
def test_adapters_are_measured_as_applied(
    tokenizer: Any, name: str, config: dict[str, Any], virtual: int, still: bool, head: Head
) -> None:
    method = Plugins().load("espalier.peft_methods", Choice(name=name, config=config))
    made = tiny("llama" if head.kind == "causal-lm" else "bert", head)

    def adapt(model: Any) -> Any:
        return method.inject(model, blueprint=made.blueprint, placement=Placement(), calibration=())

    found = read(made, tokenizer, adapt, virtual_tokens=virtual)
    same = found.get("rank_correlation", 1.0) > 0.9999 and found.get("perplexity_after") == pytest.approx(
        found.get("perplexity_before")
    )
    assert same == still


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    training = {"epochs": 2, "batch_size": 8, "max_tokens": 16, "learning_rate": 0.01}
    common: dict[str, Any] = {"training": training, "where": {"cpus_per_worker": 1}}
    still = common | {"training": training | {"max_steps": 1, "learning_rate": 1e-9, "dtype": "bfloat16"}}
    start = {"strategy": "full-finetune", "base": {"from": "scratch"}}
    candidates = {
        "scratch": {"strategy": {"name": "from-scratch", "config": TINY}, **common},
        "tuned": start | common,
        "still": start | still,
    }
    splits = {"train": rows(48), "validation": rows(6, start=90), "test": rows(6, start=96)}
    return train_alone(tmp_path_factory.mktemp("forgetting"), TASK, splits, candidates)


def test_a_training_tells_what_is_left_of_its_base(chain: dict[str, Made]) -> None:
    assert chain["scratch"].metrics["forgetting"] is None
    tuned, still = (chain[name].metrics["forgetting"] for name in ("tuned", "still"))
    assert tuned["rank_correlation"] < 0.999
    assert tuned["cosine_before"] == still["cosine_before"]
    # What bfloat16 rounds in training is not taken for something forgotten.
    assert still["correlation"] == pytest.approx(1.0, abs=1e-9)
    assert chain["tuned"].place.store.manifest(chain["tuned"].model).metrics["forgetting"] == tuned


def test_only_the_first_worker_reads(chain: dict[str, Made], tmp_path: Path) -> None:
    job = replace(chain["still"].job, checkpoints=None)
    assert train(job, out=tmp_path / "second", rank=1)["forgetting"] is None
