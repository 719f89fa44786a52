"""The columns that are asked for, compared with those that are there, before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from espalier_runtime.plugins import named_columns
from espalier_runtime.specs.models import SplitSpec
from espalier_sdk.columns import RESERVED_PREFIX
from espalier_sdk.errors import DataError, Problem
from espalier_sdk.groups import did_you_mean
from espalier_sdk.model import Columns

from espalier_preprocessing.arranging import Arrangement


def check_columns(there: Sequence[str], *, task: Columns, split: SplitSpec, steps: Arrangement) -> None:
    """Raises one DataError that lists every column that is asked for and not there."""
    own = [name for name in there if not name.startswith(RESERVED_PREFIX)]
    wanted = [(f"the task's {use}", name) for name, use in task.required.items()]
    wanted += [(f"split.{field}", name) for field, name in _of_split(split).items() if name is not None]
    wanted += [(step.name, name) for step in (*steps.early, *steps.late) for name in named_columns(step.plugin)]
    problems = tuple(
        Problem(
            code="missing_column",
            message=f"there is no column {name!r}, which {who} needs",
            field=name,
            given=name,
            accepted=", ".join(own),
            remedy=did_you_mean(name, own)
            or "correct the name, or give the source `columns` if its files have no header",
        )
        for who, name in wanted
        if name not in own
    )
    if problems:
        raise DataError(problems=problems)


def _of_split(split: SplitSpec) -> Mapping[str, str | None]:
    return {
        "group": split.group if split.by == "hash" else None,
        "column": split.column if split.by == "column" else None,
    }
