"""Columns that are asked for, compared with those of data whose files and rows differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from espalier_pipeline import columns
from espalier_pipeline.reading import check_with_data
from espalier_sdk.errors import DataError, EspalierError, Problem, SpecError


def with_paths(spec: Path, *names: str) -> None:
    spec.write_text(spec.read_text().replace("[mails.csv]", json.dumps(list(names))))


def test_a_column_of_the_second_file_is_seen(spec: Path) -> None:
    (spec.parent / "a.jsonl").write_text('{"text": "hello"}\n')
    (spec.parent / "b.jsonl").write_text('{"text": "bye", "label": "a"}\n')
    with_paths(spec, "a.jsonl", "b.jsonl")
    assert check_with_data(spec)[1] == []


def late(spec: Path, rows: int) -> None:
    """Writes JSON lines of which only the last one has a label."""
    lines = [json.dumps({"text": "hello"})] * rows + [json.dumps({"text": "bye", "label": "a"})]
    (spec.parent / "late.jsonl").write_text("\n".join(lines) + "\n")
    with_paths(spec, "late.jsonl")


def test_a_key_that_comes_late_is_found_by_reading_on(spec: Path) -> None:
    late(spec, 25_000)
    assert check_with_data(spec)[1] == []


def test_a_key_that_may_come_still_later_is_a_note_and_no_error(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_LATER_BATCHES", 1)
    late(spec, 25_000)
    _, (note,) = check_with_data(spec)
    assert "no column 'label'" in note
    assert "a later one may have it" in note


def test_a_column_that_no_row_has_is_an_error_also_in_a_long_file(spec: Path) -> None:
    rows = "\n".join(f"hello {number},a" for number in range(25_000))
    (spec.parent / "mails.csv").write_text(f"text,lable\n{rows}\n")
    with pytest.raises(SpecError, match=r"no column 'label'.*did you mean 'lable'"):
        check_with_data(spec)


def test_a_column_that_a_transform_names_has_its_place(spec: Path) -> None:
    text = spec.read_text().replace(
        "    split:", "    transforms: [{name: clean, config: {columns: [nope]}}]\n    split:"
    )
    spec.write_text(text)
    with pytest.raises(SpecError, match="no column 'nope'") as raised:
        check_with_data(spec)
    problem = raised.value.problems[0]
    assert (problem.line, problem.field) == (6, "data.mails.transforms.0.config.columns")


def problems(spec: Path, kind: type[EspalierError] = SpecError) -> dict[str, Problem]:
    with pytest.raises(kind) as raised:
        check_with_data(spec)
    return {str(problem.field): problem for problem in raised.value.problems}


def replaced(spec: Path, *pairs: tuple[str, str]) -> None:
    text = spec.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    spec.write_text(text)


def test_mistakes_of_every_kind_come_at_once_in_the_order_of_the_file(spec: Path) -> None:
    (spec.parent / "more.csv").write_text("text,lable\nhello,a\n")
    replaced(
        spec,
        ("data:", "data:\n  more:\n    sources: [{name: files, config: {paths: more.csv}}]"),
        ("mails.csv", "mail.csv"),
        ("    split:", "    transforms: [Clean, cleen]\n    split:"),
        ("metric: macro_f1", "metric: f1_macro"),
        ("strategy: {", "data: more, training: {epoch: 3}, strategy: {"),
        ("hidden_size: 32", "hidden_sise: 32"),
        ("wide: {", "wide: {data: mail, base: {from: tyni}, "),
        ("endpoint: mails", "endpoint: My Mails, weights: [60, 60]"),
    )
    found = problems(spec)
    assert list(found) == [
        "objective.task.config.target",
        "objective.metric",
        "data.mails.sources.0.config.paths.0",
        "data.mails.transforms.0",
        "data.mails.transforms.1",
        "candidates.tiny.training.epoch",
        "candidates.tiny.strategy.config.hidden_sise",
        "candidates.wide",  # a strategy from scratch takes no base
        "candidates.wide.data",
        "candidates.wide.base.from",
        "serve.endpoint",
        "serve.weights",
    ]
    assert all(problem.file == str(spec) and problem.line and problem.column for problem in found.values())


@pytest.mark.parametrize(
    ("old", "new", "fields"),
    [
        ("strategy: {name: from-scratch,", "strategy: {name: From Scratch,", {"candidates.tiny.strategy.name"}),
        ("strategy: {name: from-scratch,", "startegy: {name: from-scratch,",
         {"candidates.tiny.strategy", "candidates.tiny.startegy"}),
        ("sources:", "source:", {"data.mails.source", "data.mails.sources"}),
        ("data:", "date:", {"date", "data"}),
        ("task: {", "tsak: {", {"objective.tsak", "objective.task"}),
        ("  tiny:", "  My Tiny:", {"candidates.My Tiny"}),
        ("candidates:", "evaluate: {metircs: [rouge]}\ncandidates:", {"evaluate.metircs"}),
        ("layers: 1, hidden_size: 32}}", "layers: 1, hidden_size: 32}, base: 5}", {"candidates.tiny.strategy.base"}),
        ("name: small", "name: [small]", {"name"}),
        ("  tiny: {", "  tiny: {tune: {}, ", {"candidates.tiny.tune.space"}),
        ("  mails:\n", "  more: {sources: [{name: files, config: {paths: more.csv}}]}\n  mails:\n",
         {"candidates.tiny", "candidates.wide"}),
        ("bootstrap: chosen", "bootstrap: My Tiny", {"serve.bootstrap"}),
    ],
)  # fmt: skip
def test_what_is_broken_is_told_once_and_not_what_follows_from_it(
    spec: Path, old: str, new: str, fields: set[str]
) -> None:
    (spec.parent / "more.csv").write_text("subject\nhello\n")
    replaced(spec, (old, new))
    assert set(problems(spec)) == fields


def test_files_that_are_missing_or_empty_have_their_places_in_the_spec(spec: Path) -> None:
    (spec.parent / "empty.csv").touch()
    with_paths(spec, "mails.csv", "empty.csv", "mial.csv")
    found = problems(spec, DataError)
    assert {field: (one.file, one.line, one.code) for field, one in found.items()} == {
        "data.mails.sources.0.config.paths.1": (str(spec), 5, "empty_file"),
        "data.mails.sources.0.config.paths.2": (str(spec), 5, "missing_file"),
    }
    assert str(spec.parent / "mial.csv") in found["data.mails.sources.0.config.paths.2"].message


def test_columns_that_a_missing_files_source_names_are_compared(spec: Path) -> None:
    replaced(spec, ("[mails.csv]", "[mail.csv], columns: [label, body]"))
    assert set(problems(spec)) == {"data.mails.sources.0.config.paths.0", "objective.task.config.text"}
    replaced(spec, ("[label, body]", "[label, text]"))
    assert set(problems(spec, DataError)) == {"data.mails.sources.0.config.paths.0"}


def test_a_target_of_one_class_is_told_where_all_rows_are_read(spec: Path) -> None:
    (spec.parent / "mails.csv").write_text("text,label\n" + "hello there,only\n" * 60)
    problem = problems(spec, DataError)["objective.task.config.target"]
    assert problem.line == 2
    assert "only one class, 'only'" in problem.message


def test_a_learner_that_cannot_learn_a_task_is_told_with_its_place_beside_other_mistakes(spec: Path) -> None:
    weighed = "learner: {name: supervised, config: {class_weights: balanced}}"
    replaced(spec, ("name: classification", "name: regression"), ("metric: macro_f1", "metric: mae"))
    replaced(spec, ("candidates:", "evaluate: {metrics: [mae]}\ncandidates:"), ("  tiny: {", f"  tiny: {{{weighed}, "))
    (spec.parent / "mails.csv").write_text("body,label\nhello,1\n")
    spec.write_text(spec.read_text().partition("serve:")[0])
    found = problems(spec)
    assert set(found) == {"objective.task.config.text", "candidates.tiny.learner.config.class_weights"}
    told = found["candidates.tiny.learner.config.class_weights"]
    assert (told.line, told.remedy) == (9, "leave class_weights out")
    assert "weighs labels, and this task has numbers" in told.message


def test_gaps_in_the_target_may_be_a_second_class(spec: Path) -> None:
    (spec.parent / "mails.csv").write_text("text,label\nhello there,only\ngood bye,\n")
    assert check_with_data(spec)[1] == []


POLICY = """\
name: asked
objective: {task: {name: generation, config: {prompt: question, completion: answer}}, metric: exact_match}
data:
  pairs: {sources: [{name: files, config: {paths: [pairs.csv]}}]}
  asked: {sources: [{name: files, config: {paths: [asked.csv]}}]}
candidates:
  answers: {strategy: {name: from-scratch, config: {family: llama}}, data: pairs}
  judge:
    strategy: full-finetune
    base: {from: answers}
    learner: {name: reward, config: {rejected: rejected}}
    data: pairs
    competes: false
  policy:
    strategy: full-finetune
    base: {from: answers}
    learner: grpo
    auxiliaries: {reward: {from: judge}}
    data: asked
    competes: COMPETES
evaluate: {metrics: [exact-match]}
"""


def with_policy(folder: Path, *, competes: bool) -> Path:
    """Writes a spec whose policy learns from questions alone."""
    path = folder / "asked.yaml"
    path.write_text(POLICY.replace("COMPETES", str(competes).lower()), encoding="utf-8")
    (folder / "asked.csv").write_text("question\nwhy?\nhow?\n", encoding="utf-8")
    (folder / "pairs.csv").write_text("question,answer,rejected\nwhy?,so,no\nhow?,thus,no\n", encoding="utf-8")
    return path


def test_a_policy_that_is_measured_needs_answers_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    problem = problems(with_policy(tmp_path, competes=True))["candidates.policy.competes"]
    assert problem.message == (
        "data asked has no column 'answer', and candidate policy learns without it but is measured by it"
    )
    assert "competes: false" in (problem.remedy or "")


def test_a_policy_that_does_not_compete_learns_from_questions_alone(tmp_path: Path) -> None:
    assert check_with_data(with_policy(tmp_path, competes=False))[1] == []
