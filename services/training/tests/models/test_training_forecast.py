"""What `plan` asks the training service: parameters of a candidate, with the head that its data ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from espalier_hub.folder import Folder
from espalier_runtime.specs import Spec
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef, SpecError
from espalier_sdk.testing.tiny import write_base
from espalier_training.forecast import Forecast

from .made import SPEC, make, make_dataset, rows

LORA = {"strategy": "peft", "base": "minilm", "peft": "lora", "training": {"max_tokens": 16}}
WIDTH = 384


def foretold(place: Path, store: Store, dataset: ArtifactRef | None, **more: Any) -> dict[str, Any]:
    spec = Spec.model_validate({**SPEC, "candidates": {"lora": LORA | more}})
    datasets = {"lora": dataset} if dataset else {}
    return Forecast(spec, store, scratch=place, datasets=datasets, models={}).sizes("lora")


def test_the_head_is_that_of_the_dataset_where_one_is_made(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    least, whole = foretold(tmp_path, store, None), foretold(tmp_path, store, make_dataset(store, rows(48)))
    assert (least["exact"], whole["exact"]) == (False, True)
    assert whole["trainable_parameters"] - least["trainable_parameters"] == WIDTH + 1  # three queues, and not two


def test_examples_longer_than_the_base_has_positions_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="max_tokens 513: the model has positions for 512 tokens") as refused:
        foretold(tmp_path, Store.open(str(tmp_path)), None, training={"max_tokens": 513})
    assert refused.value.problems[0].field == "candidates.lora.training.max_tokens"


def test_a_model_of_its_own_is_foretold_before_there_is_a_tokenizer_and_what_goes_on_from_it(tmp_path: Path) -> None:
    spec, store = Spec.model_validate(SPEC), Store.open(str(tmp_path / "store"))
    early = Forecast(spec, store, scratch=tmp_path, datasets={}, models={})
    scratch, adapted = (early.sizes(name) for name in ("scratch", "adapted"))
    assert not scratch["exact"] and not adapted["exact"]
    assert adapted["parameters"] > scratch["parameters"] > adapted["trainable_parameters"]
    made = make(tmp_path, store)
    later = Forecast(spec, store, scratch=tmp_path, datasets={"adapted": made.dataset}, models={"scratch": made.model})
    known = later.sizes("adapted")
    assert known["exact"]
    assert made.metrics["parameters"] < known["parameters"] < adapted["parameters"]
    assert adapted["memory_bytes"] == pytest.approx(known["memory_bytes"], rel=0.01)


def chain(base: Path, *, batch_size: int) -> Spec:
    first = {"name": "folder", "config": {"path": str(base)}}
    whole = {"strategy": "full-finetune", "training": {"max_tokens": 16, "batch_size": batch_size}}
    candidates = {
        "written": {"base": first},
        "preferred": {"base": {"from": "written"}, "learner": "dpo"},
        "judge": {"base": {"from": "written"}, "learner": "reward", "competes": False},
        "policy": {
            "base": {"from": "preferred"},
            "learner": {"name": "grpo", "config": {"answers": 4}},
            "auxiliaries": {"reward": {"from": "judge"}},
        },
    }
    task = {"name": "generation", "config": {"prompt": "asked", "completion": "said"}}
    return Spec.model_validate(
        {
            **SPEC,
            "objective": {"task": task, "metric": "perplexity"},
            "candidates": {name: {**whole, **one} for name, one in candidates.items()},
        }
    )


def test_a_chain_is_foretold_from_its_first_base_with_the_models_that_stand_beside(tmp_path: Path) -> None:
    """Four answers to a question are four sequences, a pair is two; start and judge are whole models beside the own."""
    write_base(tmp_path / "base", "llama")
    store = Store.open(str(tmp_path / "store"))

    def sizes(name: str, batch_size: int) -> dict[str, Any]:
        spec = chain(tmp_path / "base", batch_size=batch_size)
        return Forecast(spec, store, scratch=tmp_path, datasets={}, models={}).sizes(name)

    judge = 4 * sizes("judge", 64)["parameters"]
    twice, once = (sizes("preferred", size)["memory_bytes"] for size in (128, 64))
    assert sizes("policy", 64)["memory_bytes"] - judge == pytest.approx(twice, abs=4096)
    start = 4 * sizes("preferred", 64)["parameters"]
    assert twice > once > sizes("written", 64)["memory_bytes"] - start


def test_a_base_is_fetched_once_for_all_that_start_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may weigh gigabytes."""
    write_base(tmp_path / "base", "llama")
    usual, fetched = Folder.fetch, []

    def fetch(self: Folder, revision: str, folder: Path) -> None:
        fetched.append(revision)
        usual(self, revision, folder)

    monkeypatch.setattr(Folder, "fetch", fetch)
    spec, store = chain(tmp_path / "base", batch_size=8), Store.open(str(tmp_path / "store"))
    (tmp_path / "scratch").mkdir()
    forecast = Forecast(spec, store, scratch=tmp_path / "scratch", datasets={}, models={})
    assert all(forecast.sizes(name)["parameters"] for name in spec.candidates)
    assert len(fetched) == 1
