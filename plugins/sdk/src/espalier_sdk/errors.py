"""The one family of errors, each with its exit code and with problems that name place and remedy.

Knows nothing about how an error is printed.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where it stands, what was given, what is accepted, what to do."""

    code: str
    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    field: str | None = None
    given: Any = None
    accepted: str | None = None
    remedy: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the problem as the command line prints it under `errors`."""
        return asdict(self)

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        told = self.field and re.match(rf"{re.escape(self.field)}[: ]", self.message)
        field = f"{self.field}:" if self.field and not told else ""  # a message may begin with its field
        head = " ".join(part for part in (f"{place}:" if place else "", field) if part)
        tail = "; ".join(part for part in (self.accepted and f"accepted: {self.accepted}", self.remedy) if part)
        return f"{head} {self.message}{f' ({tail})' if tail else ''}".strip()


class EspalierError(Exception):
    """An error that a user can understand: it carries problems, an exit code, and whether trying again may help."""

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "internal"
    retryable: bool = False

    def __init__(
        self,
        message: str | None = None,
        *,
        problems: tuple[Problem, ...] = (),
        code: str | None = None,
        retryable: bool = False,
        **place: Any,
    ) -> None:
        """Takes one message with its place (fields of `Problem`), or finished problems."""
        if message is not None:
            problems = (Problem(code=code or self.default_code, message=message, **place), *problems)
        assert problems, "an error without a problem tells nothing"
        self.problems = problems
        self.retryable = retryable
        super().__init__("\n".join(str(problem) for problem in problems))

    def __reduce__(self) -> tuple[Any, ...]:
        # Crosses Ray workers by pickle: keyword-only arguments need a constructor of their own.
        return (_rebuild, (type(self), self.problems, self.retryable))


def _rebuild(cls: type[EspalierError], problems: tuple[Problem, ...], retryable: bool) -> EspalierError:
    return cls(problems=problems, retryable=retryable)


class SpecError(EspalierError):
    """The spec or the command line is wrong."""

    exit_code = 2
    default_code = "spec"


class PluginError(EspalierError):
    """A plugin that was asked for is unknown, broken, refused, claimed twice, or of another contract."""

    exit_code = 3
    default_code = "plugin"


class DataError(EspalierError):
    """Data, an artifact, the store or the disk cannot be used."""

    exit_code = 4
    default_code = "data"


class ClusterError(EspalierError):
    """A cluster, a port or an endpoint cannot be reached or used."""

    exit_code = 5
    default_code = "cluster"


class ThresholdMissed(EspalierError):
    """The result is published, but below the objective's limit."""

    exit_code = 6
    default_code = "threshold_missed"


class Refused(EspalierError):
    """The state of the endpoint forbids it, for example because an experiment runs."""

    exit_code = 7
    default_code = "refused"


class TrainingFailed(EspalierError):
    """Training ended without a model."""

    exit_code = 8
    default_code = "training_failed"


class NotMergeable(PluginError):
    """A PEFT method cannot be folded into its base."""

    default_code = "not_mergeable"


EXIT_INTERRUPTED = 130
