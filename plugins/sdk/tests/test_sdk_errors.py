"""Errors: they cross processes, name place and remedy, and each has its exit code."""

from __future__ import annotations

import pickle

import pytest
from espalier_sdk import errors
from espalier_sdk.errors import DataError, EspalierError, NotMergeable, Problem, SpecError

EXIT_CODES = {
    "EspalierError": 1,
    "SpecError": 2,
    "PluginError": 3,
    "NotMergeable": 3,
    "DataError": 4,
    "ClusterError": 5,
    "ThresholdMissed": 6,
    "Refused": 7,
    "TrainingFailed": 8,
}
FAMILY = [getattr(errors, name) for name in EXIT_CODES]


def test_exit_codes_are_those_of_the_design() -> None:
    assert {cls.__name__: cls.exit_code for cls in FAMILY} == EXIT_CODES
    known = {one.__name__ for one in vars(errors).values() if isinstance(one, type) and issubclass(one, EspalierError)}
    assert known == set(EXIT_CODES)
    assert errors.EXIT_INTERRUPTED == 130


@pytest.mark.parametrize("cls", FAMILY)
def test_an_error_survives_pickle_with_all_its_problems(cls: type[EspalierError]) -> None:
    error = cls(
        "is wrong", problems=(Problem(code="other", message="so is this"),), retryable=True, file="a.csv", line=3
    )
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is cls
    assert back.problems == error.problems
    assert back.retryable
    assert str(back) == str(error)


def test_the_text_names_place_and_remedy() -> None:
    error = SpecError(
        "unknown key 'taks'",
        file="spec.yaml",
        line=4,
        column=3,
        field="objective.taks",
        accepted="task",
        remedy="rename it",
    )
    assert str(error) == "spec.yaml:4:3: objective.taks: unknown key 'taks' (accepted: task; rename it)"


def test_the_text_of_a_bare_message_is_the_message() -> None:
    assert str(DataError("nothing is left")) == "nothing is left"
    assert str(DataError("is empty", file="a.csv")) == "a.csv: is empty"
    assert str(DataError("is empty", field="text")) == "text: is empty"


def test_several_problems_are_a_line_each() -> None:
    problems = tuple(Problem(code="c", message=text) for text in ("one", "two"))
    assert str(SpecError(problems=problems)) == "one\ntwo"


def test_an_error_without_a_problem_cannot_be_made() -> None:
    with pytest.raises(AssertionError):
        SpecError()


def test_a_problem_is_printed_with_the_fields_of_the_command_line() -> None:
    problem = NotMergeable("cannot be folded", given="x").problems[0].to_json()
    assert problem["code"] == "not_mergeable"
    assert set(problem) == {"code", "message", "file", "line", "column", "field", "given", "accepted", "remedy"}


def test_a_field_that_the_message_begins_with_is_said_once() -> None:
    assert str(SpecError("--set nonsense: must be a.b.c=value", field="--set")) == "--set nonsense: must be a.b.c=value"
    assert str(SpecError("input[0]: is empty", field="input[0]")) == "input[0]: is empty"
    assert str(SpecError("models are missing", field="model")) == "model: models are missing"
