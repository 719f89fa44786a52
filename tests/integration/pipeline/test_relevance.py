"""`espalier relevance` with its child, on a tiny model of the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from espalier_pipeline.command import run as command
from espalier_runtime.card import CARD
from espalier_runtime.store import Store
from espalier_runtime.tables import write_parts
from espalier_sdk import Head
from espalier_sdk.testing.tiny import WORDS, tiny, write_tokenizer

HEAD: dict[str, Any] = {"kind": "sequence-classification", "outputs": 2, "side_width": 0, "problem": "single-label"}


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Publishes a tiny model that answers one of two labels, and its dataset."""
    store = Store.open(str(tmp_path / "store"))
    attempt = store.begin("ab" * 32)
    texts = [" ".join(WORDS[place : place + 3]) for place in range(12)]
    write_parts([pa.table({"text": texts, "label": ["a", "b"] * 6})], attempt.folder / "validation")
    dataset = attempt.publish(kind="dataset", name="tickets").ref()
    attempt = store.begin("cd" * 32, reads=[dataset])
    made: Any = tiny("bert", Head(**HEAD)).model
    made.save_pretrained(attempt.folder)
    write_tokenizer(attempt.folder)
    card = {
        "task": {"name": "classification", "config": {"text": "text", "target": "label"}},
        "state": {"labels": ["a", "b"], "counts": {"a": 6, "b": 6}},
        "strategy": {"name": "full-finetune", "config": {}},
        "peft": None,
        "base": None,
        "head": HEAD,
        "budget": {"max_tokens": 16, "padding_side": "right"},
    }
    (attempt.folder / CARD).write_text(json.dumps(card))
    return str(attempt.publish(kind="model", name="tiny", inputs=(dataset,)).ref())


def test_the_command_measures_on_the_models_own_validation_rows(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    asked = ["relevance", model, "--rows", "9", "--home", str(tmp_path), "--out", str(tmp_path / "page.html"), "--json"]
    assert command(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["rows"], found["split"]) == (model, 9, "validation")
    assert [len(one["heads"]) for one in found["layers"]] == [4, 4]
    assert {one["layer"] for one in found["modules"]} == {1, 2}
    assert model in (tmp_path / "page.html").read_text()
