"""Several labels per row: read from a column of lists or of joined text, counted, and written as zeros and ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espalier_sdk.errors import DataError

from espalier_tasks.labels import LabelState

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def label_sets(rows: pa.Table, name: str, *, separator: str | None) -> pa.ChunkedArray:
    """Returns the labels of each row, list<string> without duplicates, in the order of the row; null stays null.

    Raises DataError for a column that is neither a list nor, with a separator, text.
    """
    import pyarrow as pa

    if name not in rows.column_names:
        raise DataError(f"there is no column {name!r}", field=name, accepted=", ".join(rows.column_names))
    column = rows.column(name)
    listed = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    texts = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if not (listed or pa.types.is_null(column.type) or (texts and separator)):
        raise DataError(
            f"column {name!r} holds {column.type}, several labels are a list",
            field=name,
            accepted="a list of labels, or text with `separator`",
            remedy="say `separator` where the labels are joined in one text" if texts else "",
        )
    values = column.to_pylist()
    if texts:
        values = [None if one is None else [part.strip() for part in one.split(separator)] for one in values]
    found = [
        None if one is None else list(dict.fromkeys(str(label) for label in one if label not in (None, "")))
        for one in values
    ]
    return pa.chunked_array([pa.array(found, pa.list_(pa.string()))])


def observe_sets(sets: pa.ChunkedArray) -> LabelState:
    """Returns in how many rows each label stands."""
    from collections import Counter

    counts = Counter(label for labels in sets.to_pylist() if labels for label in labels)
    return LabelState(counts=dict(counts))


def zeros_and_ones(sets: pa.ChunkedArray, labels: tuple[str, ...]) -> np.ndarray:
    """Returns (rows, labels) float32, 1 where a row has a label; a label that is not in the map has no place."""
    import numpy as np

    place = {label: at for at, label in enumerate(labels)}
    found = np.zeros((len(sets), len(labels)), dtype=np.float32)
    for row, held in enumerate(sets.to_pylist()):
        found[row, [place[label] for label in held or () if label in place]] = 1.0
    return found


def above(scores: np.ndarray, labels: tuple[str, ...], threshold: float) -> pa.Array:
    """Returns the labels of each row whose score reaches the threshold, in the order of the labels."""
    import pyarrow as pa

    chosen = [[labels[at] for at in row.nonzero()[0]] for row in scores >= threshold]
    return pa.array(chosen, pa.list_(pa.string()))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + exp(-logits)), without overflow."""
    import numpy as np

    shares: np.ndarray = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return shares
