"""Counts of targets, predictions and hits per label: the one table that every classification metric is made from.

Knows nothing about which metric is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from espalier_sdk.columns import PREDICTION, TARGET
from espalier_sdk.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Codes:
    """Targets and predictions of the rows that have a target, as places in one sorted list of labels."""

    labels: tuple[str, ...]  # every label that is a target or a prediction, sorted
    targets: np.ndarray  # (rows,) int64
    predictions: np.ndarray  # (rows,) int64

    def confusion(self) -> np.ndarray:
        """Returns counts, (labels, labels) int64: row = target, column = prediction."""
        import numpy as np

        size = len(self.labels)
        cells = np.bincount(self.targets * size + self.predictions, minlength=size * size)
        return cells.reshape(size, size)


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each label is a target, a prediction, and both at once; each (labels,) int64."""

    labels: tuple[str, ...]
    support: np.ndarray
    predicted: np.ndarray
    hits: np.ndarray


def codes(predictions: pa.Table) -> Codes:
    """Returns the codes of all rows whose target is known.

    Rows without a target cannot be measured and are left out; without a single one DataError is raised.
    """
    import numpy as np
    import pyarrow as pa

    targets, answers = _texts(predictions, TARGET), _texts(predictions, PREDICTION)
    if targets.null_count:
        known = targets.is_valid()
        targets, answers = targets.filter(known), answers.filter(known)
    if not len(targets):
        raise _nothing_known()
    both = pa.concat_arrays([targets, answers]).dictionary_encode()
    labels = both.dictionary.to_pylist()
    order = sorted(range(len(labels)), key=labels.__getitem__)
    place = np.empty(len(labels), dtype=np.int64)
    place[order] = np.arange(len(labels))
    coded = place[both.indices.to_numpy()]
    half = len(targets)
    return Codes(tuple(labels[at] for at in order), coded[:half], coded[half:])


@dataclass(frozen=True, slots=True)
class Sets:
    """The label sets of the rows that have a target; each (rows, labels) bool."""

    labels: tuple[str, ...]  # every label that is in a target or a prediction, sorted
    targets: np.ndarray
    predictions: np.ndarray


def has_sets(predictions: pa.Table) -> bool:
    """Tells whether a row has several labels: its target is a list."""
    import pyarrow as pa

    if TARGET not in predictions.column_names:
        return False
    kind = predictions.column(TARGET).type
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def sets(predictions: pa.Table) -> Sets:
    """Returns the label sets of all rows whose target is known; DataError without a single one."""
    import numpy as np
    import pyarrow as pa

    known = predictions.filter(predictions.column(TARGET).is_valid())
    if not known.num_rows:
        raise _nothing_known()
    lists = [_joined(_column(known, name)) for name in (TARGET, PREDICTION)]
    both = pa.concat_arrays([_as_strings(one.flatten()) for one in lists]).dictionary_encode()
    labels = both.dictionary.to_pylist()
    order = sorted(range(len(labels)), key=labels.__getitem__)
    place = np.empty(len(labels), dtype=np.int64)
    place[order] = np.arange(len(labels))
    coded = place[both.indices.to_numpy()]
    found, start = [], 0
    for one in lists:
        lengths = np.diff(one.offsets.to_numpy())
        held = np.zeros((known.num_rows, len(labels)), dtype=bool)
        stop = start + int(lengths.sum())
        held[np.repeat(np.arange(known.num_rows), lengths), coded[start:stop]] = True
        found.append(held)
        start = stop
    return Sets(tuple(labels[at] for at in order), *found)


def counts(predictions: pa.Table) -> Counts:
    """Returns the counts per label of all rows whose target is known, a label or a list of labels."""
    import numpy as np

    if has_sets(predictions):
        held = sets(predictions)
        return Counts(
            labels=held.labels,
            support=held.targets.sum(axis=0),
            predicted=held.predictions.sum(axis=0),
            hits=(held.targets & held.predictions).sum(axis=0),
        )
    coded = codes(predictions)
    size = len(coded.labels)
    return Counts(
        labels=coded.labels,
        support=np.bincount(coded.targets, minlength=size),
        predicted=np.bincount(coded.predictions, minlength=size),
        hits=np.bincount(coded.targets[coded.targets == coded.predictions], minlength=size),
    )


def _nothing_known() -> DataError:
    return DataError(
        "no prediction has a target, so nothing can be measured",
        field=TARGET,
        remedy="evaluate on a split whose rows have a target",
    )


def _texts(predictions: pa.Table, name: str) -> pa.StringArray:
    return _as_strings(_joined(_column(predictions, name)))


def _column(predictions: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in predictions.column_names:
        raise DataError(
            f"the predictions have no column {name!r}",
            field=name,
            accepted=", ".join(predictions.column_names),
            remedy="give a table that a classification task has decoded",
        )
    return predictions.column(name)


def _joined(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    return array


def _as_strings(array: pa.Array) -> pa.StringArray:
    import pyarrow as pa

    return array if array.type == pa.string() else array.cast(pa.string())
