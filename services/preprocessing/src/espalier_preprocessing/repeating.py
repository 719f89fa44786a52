"""Rows of validation and test that read as a row of train does: quality on them flatters who learns by heart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from espalier_sdk.model import READ, SPLITS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_KEY_BYTES = 8


class Repeats:
    """Counts rows that stand in train too, by all columns that the model reads; holds 8 bytes per row."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = [name for name, use in columns.items() if use in READ]
        self._keys = {split: bytearray() for split in SPLITS}

    def see(self, split: str, rows: pa.Table) -> None:
        """Takes some rows of a split; without a column that is known to be read, none is like another."""
        if not self._columns:
            return
        for row in rows.select(self._columns).to_pylist():
            said = json.dumps(row, ensure_ascii=False, default=str).encode()
            self._keys[split] += hashlib.blake2b(said, digest_size=_KEY_BYTES).digest()

    def counts(self) -> dict[str, int]:
        """Returns how many rows of validation and of test stand in train too."""
        import numpy as np

        train = self._array("train")
        return {split: int(np.isin(self._array(split), train).sum()) for split in SPLITS if split != "train"}

    def _array(self, split: str) -> np.ndarray:
        import numpy as np

        return np.frombuffer(self._keys[split], dtype=np.uint64)
