"""Reading a spec: every error of a file at once, each with its place, what was given, and what is accepted."""

from __future__ import annotations

import contextlib
import textwrap
from pathlib import Path

import pytest
from espalier_runtime.specs import From, Spec, load_spec
from espalier_runtime.specs.reading import candidate_order
from espalier_runtime.specs.writing import write_spec
from espalier_sdk.errors import Problem, SpecError

GOOD = """\
name: triage
objective: {task: {name: classification, config: {text: message, target: queue}}, metric: macro_f1}
data:
  tickets:
    sources: [{name: files, config: {paths: [tickets.csv, "s3://bucket/more.csv"]}}]
    transforms: [clean, deduplicate]
    split: {by: hash, test: 0.2, validation: 0.1}
candidates:
  scratch: {strategy: {name: from-scratch, config: {layers: 4}}}
  lora:
    strategy: peft
    base: minilm
    peft: {name: lora, config: {rank: 8}}
    training: {learning_rate: 1e-3, epochs: 2}
serve: {endpoint: support, challenger: runner-up}
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def _load(folder: Path, text: str, *overrides: str) -> Spec:
    return load_spec(_write(folder, text), overrides=overrides)[0]


def _problems(folder: Path, text: str, *overrides: str) -> dict[str, Problem]:
    with pytest.raises(SpecError) as error:
        _load(folder, text, *overrides)
    return {problem.field or "": problem for problem in error.value.problems}


def test_a_good_spec_is_read_with_its_defaults(tmp_path: Path) -> None:
    spec = _load(tmp_path, GOOD)
    assert spec.candidates["lora"].base.name == "minilm"  # type: ignore[union-attr]
    assert spec.candidates["scratch"].learner.name == "supervised"
    assert spec.data_name(spec.candidates["lora"]) == "tickets"


def test_paths_in_configs_become_absolute_and_addresses_do_not(tmp_path: Path) -> None:
    config = _load(tmp_path, GOOD).data["tickets"].sources[0].config
    assert config["paths"] == [str(tmp_path / "tickets.csv"), "s3://bucket/more.csv"]


def test_data_may_be_named_as_a_path_key_is(tmp_path: Path) -> None:
    spec = _load(tmp_path, GOOD.replace("tickets:", "paths:"))
    assert spec.data["paths"].sources[0].config["paths"][0] == str(tmp_path / "tickets.csv")


def test_all_errors_of_a_file_come_at_once_in_its_order(tmp_path: Path) -> None:
    bad = (
        GOOD.replace("metric: macro_f1", "metrik: macro_f1")
        .replace("test: 0.2", "test: 1.5")
        .replace("transforms: [clean", "tranforms: [clean")
        .replace("epochs: 2", "epochs: two")
        .replace("strategy: peft", "stratgy: peft")
        .replace("endpoint: support", "endpoint: Support!")
    )
    problems = _problems(tmp_path, bad)
    assert set(problems) == {
        "objective.metrik",
        "objective.metric",
        "data.tickets.tranforms",
        "data.tickets.split.test",
        "candidates.lora.stratgy",
        "candidates.lora.strategy",
        "candidates.lora.training.epochs",
        "serve.endpoint",
    }
    lines = [problem.line for problem in problems.values()]
    assert lines == sorted(lines)  # type: ignore[type-var]
    assert all(problem.file == str(tmp_path / "spec.yaml") and problem.line for problem in problems.values())


@pytest.mark.parametrize(
    ("old", "new", "field", "line", "suggestion"),
    [
        ("serve:", "serv:", "serv", 15, "serve"),
        ("metric: macro_f1", "metric: macro_f1, at_leest: 0.5", "objective.at_leest", 2, "at_least"),
        ("by: hash", "buy: hash", "data.tickets.split.buy", 7, "by"),
        ("epochs: 2", "epoch: 2", "candidates.lora.training.epoch", 14, "epochs"),
        ("{name: lora, config: {rank: 8}}", "{name: lora, confg: {}}", "candidates.lora.peft.confg", 13, "config"),
        ("{name: files, config:", "{name: files, konfig:", "data.tickets.sources.0.konfig", 5, "config"),
    ],
)
def test_an_unknown_key_is_found_at_every_depth(
    tmp_path: Path, old: str, new: str, field: str, line: int, suggestion: str
) -> None:
    problem = _problems(tmp_path, GOOD.replace(old, new))[field]
    assert problem.code == "unknown_key"
    assert problem.line == line
    assert problem.remedy == f"did you mean {suggestion!r}?"
    assert suggestion in (problem.accepted or "").split(", ")


@pytest.mark.parametrize(
    ("old", "new", "field", "given", "accepted"),
    [
        ("epochs: 2", "epochs: many", "candidates.lora.training.epochs", "'many'", "a number"),
        ("epochs: 2", "epochs: 0", "candidates.lora.training.epochs", "0", "more than 0.0"),
        ("epochs: 2", "batch_size: 1.5", "candidates.lora.training.batch_size", "1.5", "a whole number"),
        (
            "epochs: 2",
            "dtype: float16",
            "candidates.lora.training.dtype",
            "'float16'",
            "'auto', 'float32' or 'bfloat16'",
        ),
        ("epochs: 2", "max_tokens: 4", "candidates.lora.training.max_tokens", "4", "at least 8"),
        ("test: 0.2", "test: 1", "data.tickets.split.test", "1", "less than 1.0"),
        ("[clean, deduplicate]", "clean", "data.tickets.transforms", "'clean'", "a list"),
        ("strategy: peft", "strategy: 5", "candidates.lora.strategy", "5", "a name, or a mapping {name, config}"),
        (
            "strategy: peft",
            "strategy: Peft",
            "candidates.lora.strategy",
            "'Peft'",
            "lower-case letters, digits and dashes",
        ),
        ("transforms: [clean,", "transforms: [{config: {}},", "data.tickets.transforms.0.name", None, None),
        ("name: triage", "name: [a]", "name", "['a']", "text"),
    ],
)
def test_a_wrong_value_names_what_was_given_and_what_is_accepted(
    tmp_path: Path, old: str, new: str, field: str, given: str | None, accepted: str | None
) -> None:
    problem = _problems(tmp_path, GOOD.replace(old, new))[field]
    assert problem.line is not None
    assert problem.given == given
    assert (problem.accepted or "").startswith(accepted or "")


def test_wrong_kinds_and_names_are_told_without_words_of_python_or_patterns(tmp_path: Path) -> None:
    found = _problems(tmp_path, GOOD.replace("[clean, deduplicate]", "50").replace("name: triage", "name: My Triage"))
    assert "50: is of another kind (accepted: a list)" in str(found["data.tickets.transforms"])
    assert "'My Triage': does not fit (accepted: lower-case letters, digits and dashes" in str(found["name"])


def test_a_literal_that_is_nearly_right_is_suggested(tmp_path: Path) -> None:
    problem = _problems(tmp_path, GOOD.replace("epochs: 2", "schedule: cosin"))["candidates.lora.training.schedule"]
    assert problem.remedy == "did you mean 'cosine'?"


def test_a_value_that_breaks_a_rule_over_several_fields_names_their_place(tmp_path: Path) -> None:
    problem = _problems(tmp_path, GOOD.replace("test: 0.2", "test: 0.95"))["data.tickets.split"]
    assert "leave nothing to train on" in problem.message
    assert problem.line == 7


def test_a_name_that_is_none_is_refused_where_it_stands(tmp_path: Path) -> None:
    problem = _problems(tmp_path, GOOD.replace("  lora:", "  My Lora:"))["candidates.My Lora"]
    assert problem.line == 10
    assert "'My Lora': name" in problem.message


# Union: a base is a plugin or another candidate.


def test_a_base_is_a_name_a_choice_or_another_candidate(tmp_path: Path) -> None:
    bases = {}
    for text in ("minilm", "{name: folder, config: {path: model}}", "{from: scratch}"):
        bases[text] = _load(tmp_path, GOOD.replace("base: minilm", f"base: {text}")).candidates["lora"].base
    assert bases["minilm"].name == "minilm"  # type: ignore[union-attr]
    chosen = bases["{name: folder, config: {path: model}}"]
    assert chosen.config == {"path": str(tmp_path / "model")}  # type: ignore[union-attr]
    assert isinstance(bases["{from: scratch}"], From)


@pytest.mark.parametrize(
    ("base", "fields"),
    [
        ("{nam: folder}", {"candidates.lora.base.nam", "candidates.lora.base.name"}),
        ("{name: folder, cnfig: {}}", {"candidates.lora.base.cnfig"}),
        ("{from: scratch, name: x}", {"candidates.lora.base.name"}),
        ("{from: 3}", {"candidates.lora.base.from"}),
        ("5", {"candidates.lora.base"}),
        ("[minilm]", {"candidates.lora.base"}),
        ("MiniLM", {"candidates.lora.base"}),
    ],
)
def test_a_wrong_base_is_told_once_and_in_the_words_of_what_was_meant(
    tmp_path: Path, base: str, fields: set[str]
) -> None:
    problems = _problems(tmp_path, GOOD.replace("base: minilm", f"base: {base}"))
    assert set(problems) == fields
    assert all(problem.line == 12 for problem in problems.values())


# References


def test_a_reference_to_no_candidate_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    problem = _problems(tmp_path, GOOD.replace("base: minilm", "base: {from: scrach}"))["candidates.lora.base.from"]
    assert problem.remedy == "did you mean 'scratch'?"
    assert problem.line == 12


def test_references_of_data_serve_and_auxiliaries_are_checked_together(tmp_path: Path) -> None:
    bad = GOOD.replace("base: minilm", "base: minilm\n    data: ticket\n    auxiliaries: {reward: {from: rm}}")
    problems = _problems(tmp_path, bad.replace("challenger: runner-up", "challenger: loral"))
    assert set(problems) == {"candidates.lora.data", "candidates.lora.auxiliaries.reward.from", "serve.challenger"}
    assert problems["serve.challenger"].remedy == "did you mean 'lora'?"


def test_candidates_in_a_circle_are_refused_with_the_circle(tmp_path: Path) -> None:
    bad = GOOD.replace("base: minilm", "base: {from: third}")
    bad = bad.replace("serve:", "  third: {strategy: full-finetune, base: {from: lora}}\nserve:")
    problem = _problems(tmp_path, bad)["candidates.lora"]
    assert "lora -> third -> lora" in problem.message
    itself = _problems(tmp_path, GOOD.replace("base: minilm", "base: {from: lora}"))["candidates.lora"]
    assert "lora -> lora" in itself.message


def test_candidates_come_after_those_they_refer_to(tmp_path: Path) -> None:
    text = GOOD.replace("scratch:", "tuned: {strategy: full-finetune, base: {from: lora}}\n  scratch:")
    assert candidate_order(_load(tmp_path, text)) == ["lora", "tuned", "scratch"]


def test_data_must_be_named_where_there_are_several(tmp_path: Path) -> None:
    text = GOOD.replace("candidates:", "  more: {sources: [files]}\ncandidates:", 1)
    assert set(_problems(tmp_path, text)) == {"candidates.scratch", "candidates.lora"}


def test_a_spec_in_which_nothing_competes_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("strategy: {name", "competes: false, strategy: {name").replace(
        "base: minilm", "competes: false"
    )
    assert "no candidate competes" in _problems(tmp_path, text)["candidates"].message


# --set


def test_an_override_is_read_as_yaml_and_may_add_what_is_not_there(tmp_path: Path) -> None:
    spec = _load(tmp_path, GOOD, "candidates.lora.training.epochs=1", "candidates.lora.where.workers=2",
                 "data.tickets.transforms=[clean]", "candidates.lora.peft.config.rank=4")  # fmt: skip
    lora = spec.candidates["lora"]
    assert (lora.training.epochs, lora.where.workers) == (1, 2)
    assert lora.peft is not None and lora.peft.config == {"rank": 4}
    assert len(spec.data["tickets"].transforms) == 1


@pytest.mark.parametrize(
    "override", ["name", "=x", "a..b=1", "data.tickets.sources.7=x", "candidates.lora.base.config.path=x"]
)
def test_an_override_that_fits_nowhere_is_refused(tmp_path: Path, override: str) -> None:
    problem = _problems(tmp_path, GOOD, override)["--set"]
    assert problem.given == override


def test_a_wrong_value_of_an_override_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    problem = _problems(tmp_path, GOOD, "candidates.lora.training.epochs=0")["candidates.lora.training.epochs"]
    assert problem.file == "--set candidates.lora.training.epochs=0"
    assert problem.line is None


def test_a_wrong_key_of_an_override_is_told_too(tmp_path: Path) -> None:
    problem = _problems(tmp_path, GOOD, "candidates.lora.where.workrs=2")["candidates.lora.where.workrs"]
    assert problem.remedy == "did you mean 'workers'?"


# Every leaf that `GOOD` has can be wrong without a traceback.


def test_no_wrong_value_anywhere_escapes_as_another_error(tmp_path: Path) -> None:
    tried = 0
    for location in ("name", "objective", "objective.task", "data", "data.tickets", "data.tickets.sources",
                     "data.tickets.sources.0", "data.tickets.split", "candidates", "candidates.lora",
                     "candidates.lora.peft", "candidates.lora.training", "serve", "where", "evaluate"):  # fmt: skip
        for value in ("5", "[1]", "{a: {b: 1}}", "null", "''", "[[]]", "{1: 2}"):
            tried += 1
            with contextlib.suppress(SpecError):
                _load(tmp_path, GOOD, f"{location}={value}")
    assert tried == 105


def test_the_schema_says_any_of_for_a_base_as_for_every_union() -> None:
    base = Spec.model_json_schema()["$defs"]["Candidate"]["properties"]["base"]
    assert "oneOf" not in str(base)
    assert {"$ref": "#/$defs/Choice"} in base["anyOf"]


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("epochs: 2", "epochs: .inf", "candidates.lora.training.epochs"),
        ("epochs: 2", "max_grad_norm: .nan", "candidates.lora.training.max_grad_norm"),
        ("epochs: 2", 'batch_size: "16"', "candidates.lora.training.batch_size"),
        ("epochs: 2", "batch_size: true", "candidates.lora.training.batch_size"),
        ("epochs: 2", "batch_size: 16.0", "candidates.lora.training.batch_size"),
        ("base: minilm", "base: minilm\n    competes: 1", "candidates.lora.competes"),
        ("base: minilm", 'base: minilm\n    competes: "yes"', "candidates.lora.competes"),
        ("test: 0.2", 'test: "0.2"', "data.tickets.split.test"),
    ],
)
def test_a_value_of_another_kind_is_not_made_to_fit(tmp_path: Path, old: str, new: str, field: str) -> None:
    problem = _problems(tmp_path, GOOD.replace(old, new))[field]
    assert problem.line
    assert problem.accepted


def test_a_split_without_validation_is_refused_unless_a_column_says_it(tmp_path: Path) -> None:
    problem = _problems(tmp_path, GOOD.replace("validation: 0.1", "validation: 0"))["data.tickets.split"]
    assert "nothing to compare" in problem.message
    spec = _load(
        tmp_path, GOOD.replace("by: hash, test: 0.2, validation: 0.1", "by: column, column: part, validation: 0")
    )
    assert spec.data["tickets"].split.validation == 0


def test_serving_a_candidate_that_does_not_compete_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("challenger: runner-up", "challenger: lora").replace(
        "base: minilm", "base: minilm\n    competes: false"
    )
    problem = _problems(tmp_path, text)["serve.challenger"]
    assert "does not compete" in problem.message
    assert problem.accepted == "chosen, runner-up, scratch"


def test_a_spec_that_is_written_is_read_back_the_same_from_anywhere(tmp_path: Path) -> None:
    odd = 'name: files, config: {paths: [tickets.csv], delimiter: "\\t", note: "2020-01-01", more: {secret: TOKEN}}'
    text = GOOD.replace('name: files, config: {paths: [tickets.csv, "s3://bucket/more.csv"]}', odd)
    spec = _load(tmp_path, text, "candidates.lora.training.epochs=7", "candidates.lora.training.learning_rate=1e-5")
    other = tmp_path / "elsewhere" / "copy.yaml"
    other.parent.mkdir()
    write_spec(spec, other)
    again, _ = load_spec(other)
    assert again == spec
    assert again.data["tickets"].sources[0].config["paths"] == [str(tmp_path / "tickets.csv")]
