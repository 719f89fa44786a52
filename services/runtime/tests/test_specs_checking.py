"""A spec against plugins: names, configs at every depth, and what does not go together."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from espalier_runtime.plugins import Found, Plugins
from espalier_runtime.specs import Spec, load_spec
from espalier_runtime.specs.checking import check_spec, objective_metric_is_greater_better
from espalier_sdk import Columns, DataError, Head, HeadKind, PluginConfig, PluginError, SpecError
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
    scale: float = Field(default=1.0, description="Scale.")
    path: str = Field(default="", description="A file, which a method may not name.")


class ScrubConfig(PluginConfig):
    """Columns."""

    columns: tuple[str, ...] | None = Field(default=None, description="Columns.")


def _plugin(config: type[PluginConfig], like: type = object, **members: Any) -> type:
    class Made(like):  # type: ignore[misc]
        Config: ClassVar[type[PluginConfig]] = config

        def __init__(self, config: Any) -> None:
            super().__init__()
            self.config = config
            if getattr(config, "text", "") == "forbidden":
                raise DataError("no such column", field="text", accepted="message")

    for name, value in members.items():
        setattr(Made, name, value)
    return Made


class PeftStrategy(FakeStrategy):
    peft: Literal["required", "forbidden"] = "required"

    def __init__(self) -> None:
        super().__init__(base="required", peft="required")


class FakePlugins(Plugins):
    """Plugins from a dictionary."""

    def __init__(self) -> None:
        kind: HeadKind = "sequence-classification"
        self.known: dict[str, dict[str, type]] = {
            "espalier.tasks": {
                "classify": _plugin(TaskConfig, head_kind=kind, served=True),
                "number": _plugin(TaskConfig, head_kind=kind),
                "spot": _plugin(TaskConfig, _Spotting, head_kind=kind),
                "read": _plugin(TaskConfig, _Reading, head_kind=kind),
            },
            "espalier.sources": {"files": _plugin(FilesConfig)},
            "espalier.transforms": {
                "scrub": _plugin(ScrubConfig, rewrites_text=True),
                "keep": _plugin(ScrubConfig),
            },
            "espalier.model_strategies": {"peft": _plugin(Empty, PeftStrategy), "whole": _plugin(Empty, FakeStrategy)},
            "espalier.base_models": {"minilm": _plugin(Empty)},
            "espalier.peft_methods": {"lora": _plugin(RankConfig, FakePeft), "prefix": _plugin(Empty, _Prefix)},
            "espalier.learners": {
                "supervised": _plugin(Empty, FakeLearner),
                "judge": _plugin(Empty, _Judge),
                "judged": _plugin(Empty, _Judged),
            },
            "espalier.training_controls": {"thaw": _plugin(Empty, _OnlyZero)},
            "espalier.metrics": {"hits": _plugin(Empty, reports=("hits", "misses"), greater_is_better=True)},
            "espalier.engines": {"plain": _plugin(Empty)},
        }

    def load_class(self, group: str, name: str) -> type:
        if name not in self.known[group]:
            raise PluginError(f"there is no {name}", code="unknown_plugin", given=name, remedy="did you mean it?")
        return self.known[group][name]

    def find(self, group: str, name: str) -> Found:
        point = EntryPoint(name, "acme:Made", group)
        return Found(group, name, "acme", "1.0", "acme", "Made", point)


class _OnlyZero(FakeControl):
    def __init__(self) -> None:
        super().__init__(zero_stages=frozenset({0}))


class _Prefix(FakePeft):
    def __init__(self) -> None:
        super().__init__(gradient_checkpointing=False)


class _Spotting:
    def columns(self) -> Columns:
        return Columns(required={"message": "text", "found": "spans"})


class _Reading:
    def columns(self) -> Columns:
        return Columns(required={"message": "text", "queue": "label"})


class _Judge(FakeLearner):
    def __init__(self) -> None:
        super().__init__(head=Head("token-classification", outputs=1))


class _Judged(FakeLearner):
    def __init__(self) -> None:
        super().__init__(auxiliaries={"reward": "token-classification"}, measures_loss=False)


def _check(folder: Path, text: str) -> Any:
    path = folder / "spec.yaml"
    path.write_text(text)
    spec, document = load_spec(path)
    return check_spec(spec, document, FakePlugins())


def _problems(folder: Path, text: str, error: type[SpecError] | type[PluginError] = SpecError) -> dict[str, Any]:
    with pytest.raises(error) as raised:
        _check(folder, text)
    return {str(problem.field): problem for problem in raised.value.problems}


def test_a_task_that_the_endpoint_cannot_answer_is_refused_where_it_is_served(tmp_path: Path) -> None:
    served = SPEC + "serve: {endpoint: support}\n"
    assert _check(tmp_path, served)
    assert _check(tmp_path, SPEC.replace("name: classify", "name: number"))
    problem = _problems(tmp_path, served.replace("name: classify", "name: number"))["serve"]
    assert problem.code == "not_served"
    assert "remove `serve`" in problem.remedy


@pytest.mark.parametrize(
    ("transform", "task", "refused"),
    [
        ("scrub", "spot", True),
        ("{name: scrub, config: {columns: [title, message]}}", "spot", True),
        ("{name: scrub, config: {columns: [title]}}", "spot", False),
        ("keep", "spot", False),
        ("scrub", "read", False),
    ],
)
def test_a_transform_that_moves_characters_which_spans_count_is_refused_at_its_place(
    tmp_path: Path, transform: str, task: str, refused: bool
) -> None:
    second = "  full: {strategy: whole, base: minilm}\nevaluate:"
    text = SPEC.replace("name: classify", f"name: {task}").replace("evaluate:", second)
    text = text.replace("candidates:", f"    transforms: [keep, {transform}]\ncandidates:")
    if not refused:
        assert _check(tmp_path, text)
        return
    with pytest.raises(SpecError) as raised:
        _check(tmp_path, text)
    (problem,) = raised.value.problems  # once, though two candidates learn the task
    assert (problem.code, problem.field, problem.line) == ("moved_spans", "data.tickets.transforms.1", 6)
    assert "'message'" in problem.message and "'found'" in problem.message
    assert "name other columns in its `columns`" in str(problem.remedy)


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


def test_a_method_that_does_not_train_with_gradient_checkpointing_is_a_conflict_there(tmp_path: Path) -> None:
    other = SPEC.replace("peft: {name: lora, config: {rank: 8}}", "peft: prefix")
    text = other.replace("base: minilm", "base: minilm\n    where: {gradient_checkpointing: true}")
    assert _check(tmp_path, other)
    assert "where.gradient_checkpointing: remove it" in _problems(tmp_path, text)["candidates.lora"].message


def test_an_objective_that_no_metric_reports_is_refused_with_what_is_reported(tmp_path: Path) -> None:
    problem = _problems(tmp_path, SPEC.replace("metric: hits", "metric: hit"))["objective.metric"]
    assert (problem.accepted, problem.remedy, problem.line) == ("hits, misses", "did you mean 'hits'?", 2)


def test_the_direction_is_that_of_the_metric_that_reports_the_objective(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    spec: Spec = load_spec(path)[0]
    assert objective_metric_is_greater_better(spec, FakePlugins()) is True  # type: ignore[arg-type]


# Plugins that are broken, and what can never run


def _broken(folder: Path, text: str, change: Any) -> Any:
    path = folder / "spec.yaml"
    path.write_text(text)
    spec, document = load_spec(path)
    plugins = FakePlugins()
    change(plugins.known)
    with pytest.raises(PluginError) as raised:
        check_spec(spec, document, plugins)
    return raised.value.problems[0]


class _Stumbling:
    contract = 1
    Config = Empty

    def __init__(self, config: Any) -> None:
        raise ValueError("not today")


def test_a_constructor_that_fails_is_the_plugins_fault_with_its_distribution_and_place(tmp_path: Path) -> None:
    problem = _broken(tmp_path, SPEC, lambda known: known["espalier.base_models"].update(minilm=_Stumbling))
    assert (problem.code, problem.line, problem.field) == ("broken_plugin", 9, "candidates.lora.base")
    assert "minilm (acme 1.0, espalier.base_models: acme:Made)" in problem.message
    assert "ValueError: not today" in problem.message


def test_traits_that_fail_are_the_methods_fault(tmp_path: Path) -> None:
    def traits(self: Any) -> Any:
        raise KeyError("rank")

    method = _plugin(RankConfig, FakePeft, traits=traits)
    problem = _broken(tmp_path, SPEC, lambda known: known["espalier.peft_methods"].update(lora=method))
    assert problem.code == "broken_plugin"
    assert "lora (acme 1.0" in problem.message
    assert "traits raises KeyError" in problem.message


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        (
            "    base: minilm\n",
            "    base: minilm\n    training: {batch_size: 10}\n    where: {workers: 4}\n",
            "candidates.lora.training.batch_size",
            "no multiple of workers x micro_batch_size = 8",
        ),
        (
            "evaluate:",
            "  rm: {strategy: whole, base: minilm}\n  tuned: {strategy: whole, base: minilm, "
            "auxiliaries: {reward: {from: rm}}}\nevaluate:",
            "candidates.tuned.auxiliaries.reward",
            "takes no auxiliary 'reward'",
        ),
        ("{rank: 8}", "{rank: 8, path: words.txt}", "candidates.lora.peft.config.path", "names a file"),
        ("{rank: 8}", "{scale: .inf}", "candidates.lora.peft.config.scale", "must be a finite number"),
    ],
    ids=["batch size", "auxiliary", "file of a method", "no number"],
)
def test_what_can_never_run_is_found_with_its_place(tmp_path: Path, old: str, new: str, field: str, words: str) -> None:
    problem = _problems(tmp_path, SPEC.replace(old, new, 1))[field]
    assert words in problem.message
    assert problem.line


@pytest.mark.parametrize("mergeable", [True, False])
def test_an_adapter_is_a_base_where_it_can_be_merged(tmp_path: Path, mergeable: bool) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.replace("evaluate:", "  full: {strategy: whole, base: {from: lora}}\nevaluate:", 1))
    spec, document = load_spec(path)
    plugins = FakePlugins()
    traits = FakePeft(mergeable=mergeable).traits
    method = _plugin(RankConfig, FakePeft, traits=lambda self: traits())
    plugins.known["espalier.peft_methods"].update(lora=method)
    if mergeable:
        check_spec(spec, document, plugins)
        return
    with pytest.raises(SpecError, match="'lora' is an adapter that cannot be merged into its base") as refused:
        check_spec(spec, document, plugins)
    [problem] = refused.value.problems
    assert problem.field == "candidates.full.base.from"
    assert problem.line


JUDGED = """  rm: {strategy: whole, base: minilm, learner: judge, competes: false}
  policy: {strategy: whole, base: minilm, learner: judged, auxiliaries: {reward: {from: rm}}}
evaluate:"""


def test_a_chain_of_candidates_that_ask_each_other_has_no_problem(tmp_path: Path) -> None:
    _check(tmp_path, SPEC.replace("evaluate:", JUDGED))


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        (", auxiliaries: {reward: {from: rm}}", "", "policy.auxiliaries.reward", "needs another candidate's model as"),
        ("{reward: {from", "{judge: {from", "policy.auxiliaries.judge", "takes no auxiliary 'judge'"),
        ("from: rm", "from: lora", "policy.auxiliaries.reward.from", "'lora' builds sequence-classification, the"),
        (
            "learner: judged",
            "learner: judged, training: {early_stopping: 2}",
            "policy.training.early_stopping",
            "no loss on",
        ),
        (", competes: false", "", "rm", "builds token-classification, which answers nothing that could be compared"),
    ],
    ids=["missing", "unknown", "another head", "early stopping", "competes"],
)
def test_a_chain_that_cannot_run_is_found_with_its_place(
    tmp_path: Path, old: str, new: str, field: str, words: str
) -> None:
    problem = _problems(tmp_path, SPEC.replace("evaluate:", JUDGED.replace(old, new)))[f"candidates.{field}"]
    assert words in problem.message
    assert problem.line


def test_an_auxiliary_is_merged_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    rm = "rm: {strategy: peft, base: minilm, peft: fixed, learner: judge, competes: false}"
    path.write_text(SPEC.replace("evaluate:", f"  {rm}\n{JUDGED.partition(chr(10))[2]}"))
    spec, document = load_spec(path)
    plugins = FakePlugins()
    traits = FakePeft(mergeable=False, heads=frozenset({"token-classification"})).traits
    plugins.known["espalier.peft_methods"]["fixed"] = _plugin(Empty, FakePeft, traits=lambda self: traits())
    with pytest.raises(SpecError, match="'rm' is an adapter that cannot be merged") as refused:
        check_spec(spec, document, plugins)
    assert [problem.field for problem in refused.value.problems] == ["candidates.policy.auxiliaries.reward.from"]


def test_examples_longer_than_the_models_positions_are_refused(tmp_path: Path) -> None:
    class Sizes(PluginConfig):
        max_positions: int = Field(default=64, description="Positions.")

    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    spec, document = load_spec(path)
    plugins = FakePlugins()
    plugins.known["espalier.model_strategies"]["peft"] = _plugin(Sizes, PeftStrategy)
    with pytest.raises(SpecError, match=r"max_tokens 128 is more than the model's max_positions 64"):
        check_spec(spec, document, plugins)


# Secrets


SECRET = SPEC.replace("{text: message}", "{text: {secret: ACME_TOKEN}}")


def test_a_secret_reaches_the_plugin_and_stays_a_name_in_the_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_TOKEN", "hush-hush")
    path = tmp_path / "spec.yaml"
    path.write_text(SECRET)
    spec, document = load_spec(path)
    plugins = FakePlugins()
    heard: list[str] = []
    plugins.known["espalier.tasks"]["classify"].__init__ = lambda self, config: heard.append(config.text)  # type: ignore[misc]
    check_spec(spec, document, plugins)
    assert heard == ["hush-hush"]
    assert "hush-hush" not in spec.model_dump_json()


def test_a_secret_that_the_environment_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACME_TOKEN", raising=False)
    problem = _problems(tmp_path, SECRET)["objective.task.config"]
    assert (problem.code, problem.line) == ("no_secret", 2)
    assert "ACME_TOKEN" in problem.message


def test_an_error_about_a_secret_does_not_show_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_TOKEN", "hush-hush")
    text = SPEC.replace("{rank: 8}", "{rank: {secret: ACME_TOKEN}}")
    problem = _problems(tmp_path, text)["candidates.lora.peft.config.rank"]
    assert "hush-hush" not in str(problem) + str(problem.given)


def _tuned(space: str, more: str = "") -> str:
    candidate = f"peft: {{name: lora, config: {{rank: 8}}}}\n    tune: {{space: {{{space}}}{more}}}"
    return SPEC.replace("peft: {name: lora, config: {rank: 8}}", candidate)


def test_any_field_that_training_reads_can_be_searched(tmp_path: Path) -> None:
    space = "training.learning_rate: {log_uniform: [1.0e-5, 1.0e-3]}, peft.config.rank: {log_integer: [1, 64]}, "
    space += (
        "peft.config.scale: {uniform: [0.5, 2.0]}, learner: {choice: [supervised]}, controls: {choice: [[], [thaw]]}"
    )
    assert _check(tmp_path, _tuned(space, ", scheduler: asha"))


@pytest.mark.parametrize(
    ("space", "more", "field", "words"),
    [
        (
            "peft.config.rank: {integer: [0, 64]}",
            "",
            "peft.config.rank",
            "0: input should be greater than or equal to 1",
        ),
        ("peft.config.rnk: {integer: [1, 64]}", "", "peft.config.rnk", "unknown key 'rnk'"),
        ("peft: {choice: [lora, lara]}", "", "peft", "there is no lara"),
        ("training.rate: {uniform: [0.1, 0.2]}", "", "training.rate", "training has no 'rate'"),
        ("controls.0.config.x: {integer: [1, 2]}", "", "controls.0.config.x", "controls has no '0'"),
        ("training.epochs: {uniform: [0.5, 2000.0]}", "", "training.epochs", "less than or equal to 1000"),
        ("training.seed: {integer: [0, 9]}", "", "training.seed", "repeated by `tune.seeds`"),
        ("data: {choice: [tickets]}", "", "data", "'data' is not searched"),
        ("strategy: {choice: [whole]}", "", "strategy", "peft"),
    ],
)
def test_a_search_that_cannot_run_is_found_before_its_first_trial(
    tmp_path: Path, space: str, more: str, field: str, words: str
) -> None:
    problem = _problems(tmp_path, _tuned(space, more))[f"candidates.lora.tune.space.{field}"]
    assert words in problem.message
    assert problem.line == 11, "the line of `tune`, in which the space stands"


@pytest.mark.parametrize(
    ("tune", "words"),
    [
        ("{space: {training.epochs: {uniform: [1.0, 2.0], choice: [1]}}}", "exactly one of"),
        ("{space: {training.epochs: {uniform: [2.0, 1.0]}}}", "low must be below high"),
        ("{space: {training.weight_decay: {log_uniform: [0.0, 1.0]}}}", "above 0"),
        ("{space: {training.epochs: {uniform: [1.0, 2.0]}}, sampler: grid}", "needs `choice`"),
        ("{space: {training.epochs: {choice: [1, 2]}}, sampler: grid, trials: 9}", "all 2 combinations"),
    ],
)
def test_a_space_that_says_no_range_is_refused_with_what_would_be_one(tmp_path: Path, tune: str, words: str) -> None:
    text = SPEC.replace("    base: minilm", f"    base: minilm\n    tune: {tune}")
    with pytest.raises(SpecError, match=words) as raised:
        _check(tmp_path, text)
    assert raised.value.problems[0].line == 10


@pytest.mark.parametrize(
    ("training", "tune", "words"),
    [
        ("{validations: 1}", "{scheduler: asha, ", "2 or more"),
        ("{}", "{scheduler: asha, ", "one worker only"),
    ],
)
def test_stopping_trials_early_needs_losses_on_the_way_and_one_worker(
    tmp_path: Path, training: str, tune: str, words: str
) -> None:
    told = f"training: {training}\n    tune: {tune}space: {{peft.config.rank: {{integer: [1, 4]}}}}}}"
    told += "\n    where: {workers: 2}" if training == "{}" else ""
    problem = _problems(tmp_path, SPEC.replace("base: minilm", f"base: minilm\n    {told}"))
    assert words in problem["candidates.lora.tune.scheduler"].message


def test_what_does_not_compete_is_tuned_by_its_validation_loss(tmp_path: Path) -> None:
    other = "  other: {strategy: peft, base: minilm, peft: lora, competes: false, training: {validations: 0}, "
    other += "tune: {space: {training.epochs: {choice: [1, 2]}}}}\nevaluate"
    problem = _problems(tmp_path, SPEC.replace("evaluate", other, 1))["candidates.other.tune"]
    assert "raise training.validations" in problem.remedy


def test_a_learning_curve_needs_a_candidate_that_is_compared(tmp_path: Path) -> None:
    text = SPEC.replace("base: minilm", "base: minilm\n    learning_curve: [0.5, 0.25]")
    assert _check(tmp_path, text)
    other = "  other: {strategy: peft, base: minilm, peft: lora, competes: false, learning_curve: [0.5]}\nevaluate"
    assert (
        "does not compete"
        in _problems(tmp_path, text.replace("evaluate", other, 1))["candidates.other.learning_curve"].message
    )
    with pytest.raises(SpecError, match="less than 1"):
        _check(tmp_path, text.replace("0.25", "1.0"))
