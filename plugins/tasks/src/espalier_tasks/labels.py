"""The label map of a classification: how it is counted on the train split, and what is refused about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espalier_sdk.choice import State
from espalier_sdk.errors import DataError
from espalier_sdk.groups import did_you_mean
from pydantic import Field

if TYPE_CHECKING:
    import pyarrow as pa


class LabelState(State):
    """The labels of the train split, in the order of the model's outputs, and how often each was seen."""

    labels: tuple[str, ...] = Field(default=(), description="Labels in the order of the model's outputs.")
    counts: dict[str, int] = Field(default_factory=dict, description="Rows of the train split per label.")

    @property
    def rare(self) -> tuple[str, ...]:
        """Returns the labels with fewer than two examples: they can hardly be learned."""
        return tuple(label for label in self.labels if self.counts.get(label, 0) < 2)


def observe_labels(column: pa.ChunkedArray) -> LabelState:
    """Returns how often each label stands in a column of text; rows without one are left out."""
    counted = column.value_counts().to_pylist() if len(column) else []
    return LabelState(counts={entry["values"]: entry["counts"] for entry in counted if entry["values"] is not None})


def combine_labels(left: LabelState, right: LabelState) -> LabelState:
    """Returns the counts of both."""
    counts = dict(left.counts)
    for label, count in right.counts.items():
        counts[label] = counts.get(label, 0) + count
    return LabelState(counts=counts)


def finish_labels(seen: LabelState, *, column: str, declared: tuple[str, ...] | None) -> LabelState:
    """Returns the label map: sorted labels, or the declared ones in their order.

    Raises DataError for fewer than two classes, and for a label that is not among the declared ones.
    """
    counts = dict(sorted(seen.counts.items()))
    if declared is not None:
        _refuse_undeclared(counts, column=column, declared=declared)
    if len(counts) < 2:
        raise DataError(
            f"column {column!r} has {_how_many(counts)} in the train split; a classification needs at least two",
            code="one_class",
            field=column,
            given=list(counts),
            remedy="check that `target` names the right column, that the transforms leave rows of each class, "
            "and that a split by group or column does not put whole classes aside",
        )
    labels = declared if declared is not None else tuple(counts)
    return LabelState(labels=labels, counts={label: counts.get(label, 0) for label in sorted(labels)})


def _how_many(counts: dict[str, int]) -> str:
    return f"only one class, {next(iter(counts))!r}," if counts else "no class at all"


def _refuse_undeclared(counts: dict[str, int], *, column: str, declared: tuple[str, ...]) -> None:
    strange = [label for label in counts if label not in declared]
    if strange:
        hint = did_you_mean(strange[0], list(declared))
        raise DataError(
            f"column {column!r} has {counts[strange[0]]} rows with {strange[0]!r}, which is not among `labels`"
            + (f" ({len(strange)} such values)" if len(strange) > 1 else ""),
            code="unknown_label",
            field=column,
            given=strange[:10],
            accepted=", ".join(declared),
            remedy=hint or "add it to `labels`, leave `labels` out, or drop these rows with the transform `filter`",
        )
