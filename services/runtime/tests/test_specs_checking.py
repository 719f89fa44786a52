"""A spec against plugins: names, configs at every depth, and what does not go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from espalier_runtime.specs import Spec, load_spec
from espalier_runtime.specs.checking import check_spec, objective_metric_is_greater_better
from espalier_sdk import DataError, HeadKind, PluginConfig, PluginError, SpecError
from espalier_sdk.testing.fakes import FakeControl, FakeLearner, FakePeft, FakeStrategy
from pydantic import Field

SPEC = """\
name: triage
objective: {task: {name: classify, config: {text: message}}, metric: hits}
data:
  tickets:
    sources: [{name: files, config: {paths: [a.csv], reading: {delimiter: ","}}}]
candidates:
  lora:
    strategy: peft
    base: minilm
    peft: {name: lora, config: {rank: 8}}
evaluate: {metrics: [hits], engine: plain}
"""


class Empty(PluginConfig):
    """No options."""


class Reading(PluginConfig):
    """Options within an option."""

    delimiter: str = Field(default=",", max_length=1, description="One character.")


class FilesConfig(PluginConfig):
    """Files."""

    paths: tuple[str, ...] = Field(description="Paths.")
    reading: Reading = Field(default=Reading(), description="How.")


class TaskConfig(PluginConfig):
    """A text."""

    text: str = Field(description="Column.")


class RankConfig(PluginConfig):
    """A rank."""

    rank: int = Field(default=8, ge=1, description="Rank.")


def _plugin(config: type[PluginConfig], like: type = object, **members: Any) -> type:
    class Made(like):  # type: ignore[misc]
        Config: ClassVar[type[PluginConfig]] = config

        def __init__(self, config: Any) -> None:
            super().__init__()
            if getattr(config, "text", "") == "forbidden":
                raise DataError("no such column", field="text", accepted="message")

    for name, value in members.items():
        setattr(Made, name, value)
    return Made


class PeftStrategy(FakeStrategy):
    peft: Literal["required", "forbidden"] = "required"

    def __init__(self) -> None:
        super().__init__(base="required", peft="required")


class FakePlugins:
    """Plugins from a dictionary."""

    def __init__(self) -> None:
        kind: HeadKind = "sequence-classification"
        self.known: dict[str, dict[str, type]] = {
            "espalier.tasks": {"classify": _plugin(TaskConfig, head_kind=kind)},
            "espalier.sources": {"files": _plugin(FilesConfig)},
            "espalier.model_strategies": {"peft": _plugin(Empty, PeftStrategy), "whole": _plugin(Empty, FakeStrategy)},
            "espalier.base_models": {"minilm": _plugin(Empty)},
            "espalier.peft_methods": {"lora": _plugin(RankConfig, FakePeft)},
            "espalier.learners": {"supervised": _plugin(Empty, FakeLearner)},
            "espalier.training_controls": {"thaw": _plugin(Empty, _OnlyZero)},
            "espalier.metrics": {"hits": _plugin(Empty, reports=("hits", "misses"), greater_is_better=True)},
            "espalier.engines": {"plain": _plugin(Empty)},
        }

    def load_class(self, group: str, name: str) -> type:
        if name not in self.known[group]:
            raise PluginError(f"there is no {name}", code="unknown_plugin", given=name, remedy="did you mean it?")
        return self.known[group][name]


class _OnlyZero(FakeControl):
    def __init__(self) -> None:
        super().__init__(zero_stages=frozenset({0}))


def _check(folder: Path, text: str) -> Any:
    path = folder / "spec.yaml"
    path.write_text(text)
    spec, document = load_spec(path)
    return check_spec(spec, document, FakePlugins())  # type: ignore[arg-type]


def _problems(folder: Path, text: str, error: type[SpecError] | type[PluginError] = SpecError) -> dict[str, Any]:
    with pytest.raises(error) as raised:
        _check(folder, text)
    return {str(problem.field): problem for problem in raised.value.problems}


def test_a_spec_whose_plugins_fit_gives_them_by_place(tmp_path: Path) -> None:
    loaded = _check(tmp_path, SPEC)
    assert ("objective", "task") in loaded
    assert ("candidates", "lora", "peft") in loaded
    assert ("evaluate", "metrics", 0) in loaded
    assert len(loaded) == 8


@pytest.mark.parametrize(
    ("old", "new", "field", "line", "remedy"),
    [
        ("{rank: 8}", "{rnak: 8}", "candidates.lora.peft.config.rnak", 10, "did you mean 'rank'?"),
        ('{delimiter: ","}', '{delimeter: ","}', "data.tickets.sources.0.config.reading.delimeter", 5,
         "did you mean 'delimiter'?"),
        ("{text: message}", "{text: message, txet: a}", "objective.task.config.txet", 2, "did you mean 'text'?"),
    ],
)  # fmt: skip
def test_an_unknown_key_inside_a_plugins_config_has_its_place_and_a_suggestion(
    tmp_path: Path, old: str, new: str, field: str, line: int, remedy: str
) -> None:
    problem = _problems(tmp_path, SPEC.replace(old, new))[field]
    assert (problem.code, problem.line, problem.remedy) == ("unknown_key", line, remedy)


def test_wrong_values_of_several_configs_come_at_once(tmp_path: Path) -> None:
    bad = SPEC.replace("rank: 8", "rank: 0").replace('delimiter: ","', 'delimiter: ",,"').replace("text: message", "")
    problems = _problems(tmp_path, bad)
    assert set(problems) == {
        "objective.task.config.text",
        "data.tickets.sources.0.config.reading.delimiter",
        "candidates.lora.peft.config.rank",
    }
    assert problems["candidates.lora.peft.config.rank"].accepted == "at least 1"
    assert problems["candidates.lora.peft.config.rank"].given == "0"


def test_an_error_of_a_plugins_constructor_is_placed_in_its_config(tmp_path: Path) -> None:
    problem = _problems(tmp_path, SPEC.replace("text: message", "text: forbidden"))["objective.task.config.text"]
    assert (problem.line, problem.accepted) == (2, "message")


def test_plugins_that_are_missing_are_a_plugin_error_with_places(tmp_path: Path) -> None:
    bad = SPEC.replace("peft: {name: lora", "peft: {name: lroa").replace("base: minilm", "base: maxilm")
    problems = _problems(tmp_path, bad, PluginError)
    assert {field: problem.line for field, problem in problems.items()} == {
        "candidates.lora.base": 9,
        "candidates.lora.peft": 10,
    }
    assert problems["candidates.lora.peft"].given == "lroa"


def test_missing_plugins_and_wrong_configs_come_together_as_a_spec_error(tmp_path: Path) -> None:
    bad = SPEC.replace("peft: {name: lora", "peft: {name: lroa").replace("text: message", "")
    assert set(_problems(tmp_path, bad)) == {"objective.task.config.text", "candidates.lora.peft"}


def test_choices_that_do_not_go_together_are_a_conflict_at_the_candidate(tmp_path: Path) -> None:
    problem = _problems(tmp_path, SPEC.replace("strategy: peft", "strategy: whole"))["candidates.lora"]
    assert (problem.code, problem.line) == ("conflict", 7)
    assert "the strategy takes no peft" in problem.message


def test_a_control_that_cannot_run_at_the_zero_stage_is_a_conflict(tmp_path: Path) -> None:
    text = SPEC.replace("base: minilm", "base: minilm\n    controls: [thaw]\n    where: {zero_stage: 3}")
    assert "controls[0] runs at ZeRO stage 0" in _problems(tmp_path, text)["candidates.lora"].message


def test_an_objective_that_no_metric_reports_is_refused_with_what_is_reported(tmp_path: Path) -> None:
    problem = _problems(tmp_path, SPEC.replace("metric: hits", "metric: hit"))["objective.metric"]
    assert (problem.accepted, problem.remedy, problem.line) == ("hits, misses", "did you mean 'hits'?", 2)


def test_the_direction_is_that_of_the_metric_that_reports_the_objective(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    spec: Spec = load_spec(path)[0]
    assert objective_metric_is_greater_better(spec, FakePlugins()) is True  # type: ignore[arg-type]
