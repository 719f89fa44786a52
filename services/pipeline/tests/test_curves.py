"""Learning curves: points in order, and what is said of more data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from espalier_pipeline.curves import conclusion
from espalier_pipeline.driver import run
from espalier_pipeline.forecast import plan
from espalier_pipeline.tables import render
from espalier_pipeline.view import QuietView
from espalier_runtime.specs import load_spec

from .conftest import SPEC


def _point(examples: int, value: float, error: float | None = 0.01) -> dict[str, Any]:
    return {"share": examples / 100, "examples": examples, "value": value, "error": error, "low": None, "high": None}


@pytest.mark.parametrize(
    ("values", "greater_is_better", "words"),
    [
        # 1.96 * sqrt(0.01^2 + 0.01^2) = 0.0277
        ((0.80, 0.85), True, "better by 0.050 (0.022 to 0.078): more data of this kind would likely help"),
        ((0.80, 0.81), True, "better by 0.010 (-0.018 to 0.038): too little to tell"),
        ((0.80, 0.75), True, "made it worse"),
        ((0.80, 0.75), False, "more data of this kind would likely help"),
    ],
)
def test_the_last_rise_is_told_from_chance_by_both_models_errors(
    values: tuple[float, float], greater_is_better: bool, words: str
) -> None:
    points = [_point(10, 0.2), _point(50, values[0]), _point(100, values[1])]
    said = conclusion(points, "macro_f1", greater_is_better=greater_is_better, confidence=0.95)
    assert said is not None
    assert said.startswith("From 50 to 100 examples macro_f1 went from 0.8 to")
    assert words in said


def test_nothing_is_said_of_one_point_or_without_an_error() -> None:
    assert conclusion([_point(100, 0.9)], "f", greater_is_better=True, confidence=0.9) is None
    points = [_point(50, 0.8, None), _point(100, 0.9)]
    assert conclusion(points, "f", greater_is_better=True, confidence=0.9) is None


def test_a_run_draws_the_curve_of_the_candidate_as_it_was_trained(spec: Path, services) -> None:
    text = SPEC.replace("tiny: {", "tiny: {learning_curve: [0.5, 0.25], training: {epochs: 4}, ")
    spec.write_text(text, encoding="utf-8")
    result = run(spec, view=QuietView())
    (curve,) = result.document()["learning_curves"]
    assert [(one["share"], one["examples"], one["value"]) for one in curve["points"]] == [
        (0.25, 25, 0.9),
        (0.5, 50, 0.9),
        (1.0, 100, 0.9),
    ]
    assert "learning curve   tiny: From 50 to 100 examples" in render(result)
    page = result.report.read_text(encoding="utf-8")
    assert "What more data would do" in page
    derived, _ = load_spec(result.record.folder / "spec-tiny-by-share.yaml")
    assert derived.candidates["tiny"].training.epochs == 4
    assert derived.candidates["tiny"].tune.space["training.train_share"].choice == (0.25, 0.5, 1.0)
    assert {step.name: bool(step.ref) for step in plan(spec)}["tiny by share of the data"]
