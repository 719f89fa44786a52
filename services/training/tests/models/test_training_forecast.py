"""What `plan` asks the training service: parameters of a candidate, with the head that its data ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from espalier_runtime.plugins import Plugins
from espalier_runtime.specs import Spec
from espalier_runtime.store import Store
from espalier_sdk import SpecError
from espalier_training.forecast import sizes

from .made import SPEC, make_dataset, rows

LORA = {"strategy": "peft", "base": "minilm", "peft": "lora", "training": {"max_tokens": 16}}
WIDTH = 384


def foretold(store: Store, dataset: str | None, **more: Any) -> dict[str, Any]:
    spec = Spec.model_validate({**SPEC, "candidates": {"lora": LORA | more}})
    candidate = spec.candidates["lora"]
    return sizes(candidate, spec.task_of(candidate), store, Plugins(), name="lora", dataset=dataset)


def test_the_head_is_that_of_the_dataset_where_one_is_made(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    least, whole = foretold(store, None), foretold(store, str(make_dataset(store, rows(48))))
    assert (least["exact"], whole["exact"]) == (False, True)
    assert whole["trainable_parameters"] - least["trainable_parameters"] == WIDTH + 1  # three queues, and not two


def test_examples_longer_than_the_base_has_positions_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="max_tokens 513: the model has positions for 512 tokens") as refused:
        foretold(Store.open(str(tmp_path)), None, training={"max_tokens": 513})
    assert refused.value.problems[0].field == "candidates.lora.training.max_tokens"
