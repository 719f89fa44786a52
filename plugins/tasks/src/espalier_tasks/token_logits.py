"""What an engine answers per token, as one array per row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from espalier_sdk.columns import LOGITS
from espalier_sdk.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def rows_of_logits(outputs: pa.Table, *, width: int) -> Iterator[np.ndarray]:
    """Yields (tokens, width) float32 for each row; DataError for another width, or where a number is none."""
    import numpy as np

    row = 0
    for chunk in outputs.column(LOGITS).chunks:
        tokens: Any = chunk.flatten()  # one list per token
        flat = tokens.flatten().to_numpy(zero_copy_only=False)
        if flat.size != len(tokens) * width:
            raise DataError(
                f"the model answers {flat.size / max(1, len(tokens)):g} outputs per token, the task has {width}",
                field=LOGITS,
                remedy="open the model with the state that it was trained with",
            )
        table = flat.reshape(len(tokens), width).astype(np.float32, copy=False)
        start = 0
        for length in np.diff(chunk.offsets.to_numpy()).tolist():
            found = table[start : start + length]
            if not np.isfinite(found).all():
                raise DataError(
                    f"the model answers no number for row {row}", field=LOGITS, remedy="train again at a lower rate"
                )
            yield found
            start, row = start + length, row + 1
