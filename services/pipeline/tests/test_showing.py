"""An artifact's record, for a reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from espalier_pipeline.showing import facts, render_manifest
from espalier_runtime.store import Store

WHAT = {
    "strategy": {"name": "full-finetune", "config": {}},
    "task": {"name": "classification", "config": {"target": "queue"}},
    "peft": None,
    "controls": [],
    "metrics": [{"name": "f1", "config": {}}, {"name": "recall", "config": {"k": 2}}],
    "training": {"epochs": 4.0, "learning_rate": 0.0002, "dtype": "bfloat16"},
}


def measured(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "error": 0.05}


def test_each_value_has_its_path_and_plugins_are_named() -> None:
    assert dict(facts(WHAT)) == {
        "strategy": "full-finetune",
        "task": "classification",
        "task.target": "queue",
        "metrics": 'f1, {"name": "recall", "config": {"k": 2}}',
        "training.epochs": "4",
        "training.learning_rate": "0.0002",
        "training.dtype": "bfloat16",
    }
    told = dict(facts({"values": {"f1": measured(0.5)}, "size_bytes": 91_574_207, "rows": 0}))
    assert told == {"values.f1": "0.50  0.40-0.60", "size_bytes": "91.6 MB", "rows": "0"}


def test_show_has_a_line_for_each_value_and_says_where_the_rest_is(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    attempt = store.begin("1" * 64)
    (attempt.folder / "made.txt").write_text("made")
    facts_of = {"metrics": {f"f1/{n}": measured(0.5) for n in range(50)}, "provenance": {"seconds": 147.5}}
    text = render_manifest(attempt.publish(kind="model", name="full", what=WHAT, **facts_of))
    lines = text.splitlines()
    assert "{" not in text.replace('{"name": "recall", "config": {"k": 2}}', "")
    assert next(line for line in lines if line.startswith("asked for")).split() == [
        "asked",
        "for",
        "strategy",
        "full-finetune",
    ]
    assert "           training.epochs         4" in lines
    assert "           and 10 more: --json" in lines
    assert "file       made.txt  0.0 kB" in lines
