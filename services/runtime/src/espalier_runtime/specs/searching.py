"""What is wrong with a search before its first trial: paths, the ends of ranges, and what cannot be measured.

Knows nothing about plugins; `specs.checking` checks each candidate that stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from espalier_sdk.errors import Problem
from pydantic import ValidationError

from espalier_runtime.specs.document import Location, SpecDocument
from espalier_runtime.specs.models import Candidate, Spec
from espalier_runtime.specs.space import SEARCHED, ends, with_candidate, with_values

Check = Callable[[Spec], Sequence[Problem]]


def tune_problems(spec: Spec, name: str, document: SpecDocument, check: Check) -> Iterator[Problem]:
    """Yields what keeps a candidate from being tuned; `check` returns what is wrong with it in a derived spec."""
    candidate, at = spec.candidates[name], ("candidates", name, "tune")
    if candidate.learning_curve and not candidate.competes:
        yield document.problem(
            ("candidates", name, "learning_curve"),
            "a learning curve is drawn of the objective's metric, and this candidate does not compete",
            code="not_compared",
            remedy="remove it, or `competes: false`",
        )
    if candidate.tune is None:
        return
    yield from _measured(candidate, at, document)
    told: set[str] = set()
    for path, value in ends(candidate):
        if path in told:
            continue
        problem = _refused(spec, name, path, value, check)
        if problem is not None:
            told.add(path)
            message = problem.message if problem.code == "unknown_path" else f"{value!r}: {problem.message}"
            yield document.problem(
                (*at, "space", path),
                message,
                code=problem.code,
                given=problem.given if problem.given is not None else value,
                accepted=problem.accepted,
                remedy=problem.remedy,
            )


def _refused(spec: Spec, name: str, path: str, value: object, check: Check) -> Problem | None:
    """Returns the first problem of the candidate with one value in place."""
    try:
        tried = with_values(spec.candidates[name], {path: value})
    except LookupError as error:
        remedy = f"a path begins with one of {', '.join(SEARCHED)}, as in training.learning_rate or peft.config.rank"
        return Problem(code="unknown_path", message=str(error.args[0]), given=path, remedy=remedy)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        text = first["msg"].removeprefix("Value error, ")
        return Problem(code=first["type"], message=text[:1].lower() + text[1:])
    return next(iter(check(with_candidate(spec, name, tried))), None)


def _measured(candidate: Candidate, at: Location, document: SpecDocument) -> Iterator[Problem]:
    """Yields searches that have nothing to go by."""
    tune, count = candidate.tune, candidate.training.validations
    assert tune is not None, "a candidate that is tuned"
    if not candidate.competes and count == 0:
        yield document.problem(
            at,
            "what does not compete is tuned by its validation loss, and `training.validations` is 0",
            code="not_measured",
            remedy="raise training.validations",
        )
    if tune.scheduler != "asha":
        return
    if count < 2 or "training.validations" in tune.space:
        yield document.problem(
            (*at, "scheduler"),
            "asha compares trials by their validation losses on the way: it needs the same `training.validations`, 2 "
            "or more, in all of them",
            code="not_measured",
            given=count,
            remedy="raise training.validations, and leave it out of the space",
        )
    if candidate.where.workers > 1 or candidate.where.zero_stage:
        yield document.problem(
            (*at, "scheduler"),
            "asha stops trials of one worker only",
            code="workers",
            given=candidate.where.workers,
            accepted="where.workers 1 and zero_stage 0",
            remedy="remove the scheduler, or train on one worker",
        )
