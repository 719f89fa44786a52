"""What the demo prints of its answers and of what comes next."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

DEMO = Path(__file__).parents[3] / "examples" / "support-triage" / "demo.py"


@pytest.fixture
def demo() -> Any:
    found = spec_from_file_location("demo", DEMO)
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_shares_are_said_to_be_per_answer_and_the_overhead_says_beside_what(demo: Any, capsys) -> None:
    right = [True, True, True, False]
    answers = [{"unit": "a", "variant": "full", "right": one, "overhead_ms": 0.3} for one in right]
    demo.print_split(answers, {"id": "e1", "weights": [50, 50]})
    printed = capsys.readouterr().out
    assert "4 answers to 1 units, 75% right per answer" in printed
    assert "0.3 ms per answer beside the model's own time (median)" in printed


def test_ask_is_said_to_need_another_terminal(demo: Any, capsys) -> None:
    demo.print_next()
    serve, other, ask, *_ = capsys.readouterr().out.splitlines()
    assert " serve " in serve
    assert "another terminal" in other
    assert " ask support " in ask
