"""`relevance`: what is printed and drawn of what the child measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from espalier_pipeline import plots
from espalier_pipeline import relevance as measuring
from espalier_pipeline.command import run as command

FOUND: dict[str, Any] = {
    "model": "model/tiny@01234567",
    "dataset": "dataset/tickets@01234567",
    "split": "validation",
    "rows": 7,
    "seed": 0,
    "layers": [
        {
            "layer": layer,
            "relevance": share,
            "heads": [share / 4, 3 * share / 4],
            "units": share,
            "top_units": [{"unit": 5, "relevance": share / 2}, {"unit": 1, "relevance": share / 4}],
        }
        for layer, share in ((1, 0.25), (2, 0.75))
    ],
    "modules": [
        {"name": f"layer.{layer}.{name}", "layer": layer, "relevance": share}
        for layer, name, share in ((1, "query", 0.2), (1, "dense", 0.05), (2, "query", 0.35), (2, "dense", 0.4))
    ],
    "removal": {
        "heads": {
            "removed": 1,
            "of": 4,
            "most": {"moved": 0.8, "kept": 0.5},
            "least": {"moved": 0.02, "kept": 1.0},
            "drawn": [{"moved": 0.2, "kept": 0.75}, {"moved": 0.4, "kept": 0.85}],
        },
        "units": {
            "removed": 3,
            "of": 16,
            "most": {"moved": 0.3, "kept": None},
            "least": {"moved": 0.01, "kept": None},
            "drawn": [{"moved": 0.1, "kept": None}],
        },
    },
    "shuffled": {"heads": 0.1, "units": -0.02},
}


def test_the_table_names_the_strongest_head_and_module_of_each_layer() -> None:
    lines = measuring.table(FOUND).splitlines()
    assert lines[2].split() == ["1", "25.0%", "25.0%", "25.0%", "1", "(18.8%)", "layer.1.query", "(20.0%)"]
    assert lines[3].split() == ["2", "75.0%", "75.0%", "75.0%", "1", "(56.2%)", "layer.2.dense", "(40.0%)"]


def test_the_checks_are_told_in_words_and_numbers_keep_no_decision() -> None:
    heads, units, shuffled = measuring.sentences(FOUND)
    assert heads.startswith("1 of 4 heads removed: without the most relevant scores move by 80% and 50% of the")
    assert "without drawn ones scores move by 30% and 80% of the decisions stay" in heads
    assert units.endswith("without the most relevant scores move by 30%, without the least scores move by 1%, "
                          "without drawn ones scores move by 10%")  # fmt: skip
    assert "heads 0.10, units -0.02" in shuffled


def test_the_page_holds_the_plot_and_escapes_what_others_named(tmp_path: Path) -> None:
    found = {**FOUND, "model": "model/<b>@01234567"}
    measuring.draw(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "model/&lt;b&gt;@01234567" in page
    assert plots.relevance(found) in page
    assert page.index("layer.2.dense") < page.index("layer.1.query"), "the strongest module comes first"
    measuring.draw(found, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text() == plots.relevance(found)


def test_another_ending_is_refused_before_anything_is_measured(tmp_path: Path, capsys) -> None:
    asked = ["relevance", "model/tiny@01234567", "--home", str(tmp_path), "--out", str(tmp_path / "it.png"), "--json"]
    assert command(asked) == 2
    (error,) = json.loads(capsys.readouterr().out)["errors"]
    assert (error["field"], error["accepted"]) == ("--out", ".html or .svg")
    assert not (tmp_path / "relevance.log").exists()
