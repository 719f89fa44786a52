"""A tuned candidate in a run: its study first, then the model of its best trial, and what people are told of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from espalier_pipeline import plots
from espalier_pipeline.driver import run
from espalier_pipeline.forecast import plan
from espalier_pipeline.studies import sentence, value_text
from espalier_pipeline.tables import render
from espalier_pipeline.view import QuietView
from espalier_runtime.specs import load_spec
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef

from .conftest import SPEC, TRIALS

TUNE = "tune: {space: {training.learning_rate: {log_uniform: [0.001, 0.1]}}, trials: 3}"


@pytest.fixture
def tuned(spec: Path) -> Path:
    spec.write_text(SPEC.replace("tiny: {", f"tiny: {{{TUNE}, "), encoding="utf-8")
    return spec


def test_a_tuned_candidates_model_is_the_one_that_its_best_values_give(tuned: Path, services) -> None:
    result = run(tuned, view=QuietView())
    made = [(one["stage"], one["name"], one["cached"]) for one in result.stages]
    assert made.index(("tune", "tiny", False)) < made.index(("train", "tiny", False))
    arguments = next(given for module, given in services.calls if "train" in given and "tiny" in given)
    settled, _ = load_spec(Path(arguments[arguments.index("--spec") + 1]))
    assert settled.candidates["tiny"].training.learning_rate == 0.03
    assert settled.candidates["tiny"].tune is None
    store = Store.open(str(tuned.parent / ".espalier" / "store"))
    model = next(one["model"] for one in result.candidates if one["name"] == "tiny")
    assert store.manifest(ArtifactRef.parse(model)).what["training"]["learning_rate"] == 0.03


def test_a_run_again_finds_the_study_and_its_model(tuned: Path, services) -> None:
    run(tuned, view=QuietView())
    assert {step.stage: bool(step.ref) for step in plan(tuned) if step.name == "tiny"} == {"tune": True, "train": True}
    again = run(tuned, view=QuietView())
    assert all(one["cached"] for one in again.stages if one["name"] == "tiny")


def test_table_document_and_report_tell_what_was_tried(tuned: Path, services) -> None:
    result = run(tuned, view=QuietView())
    assert "tiny: 3 trials, 1 stopped early; best: training.learning_rate 0.03" in render(result)
    told = result.document()["tuned"][0]
    assert [one["number"] for one in told["trials"]] == [2, 0, 1], "the best first, those without a score last"
    page = result.report.read_text(encoding="utf-8")
    assert "What was tried for tiny" in page
    assert page.count("stopped early") >= 2


def test_the_plot_of_trials_marks_the_best_and_those_without_a_score() -> None:
    found = {"trials": TRIALS, "best": 2, "values": TRIALS[2]["values"], "scored": "macro_f1"}
    drawn = plots.trials(found, logarithmic=["training.learning_rate"])
    assert drawn.count("#b8b8b8") >= 1
    assert drawn.count("#0b6e4f") >= 1
    words = [one | {"values": {"peft": name}} for one, name in zip(TRIALS, ("lora", "ia3", "lora"), strict=True)]
    assert ">ia3<" in plots.trials(found | {"trials": words, "values": {"peft": "lora"}}, logarithmic=[])
    assert plots.trials(found | {"trials": TRIALS[1:2]}, logarithmic=[]) is None


def test_values_read_as_a_spec_would_have_them() -> None:
    assert [value_text(one) for one in (0.003, "lora", {"name": "ia3", "config": {}}, True, [1, 2])] == [
        "0.003",
        "lora",
        "ia3",
        "true",
        "[1, 2]",
    ]
    told = {"trials": TRIALS, "stopped": 0, "refused": 2, "failed": 1, "values": {"a": 1}}
    assert sentence(told) == "3 trials, 2 refused, 1 failed; best: a 1"
