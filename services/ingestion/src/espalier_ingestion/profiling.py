"""What a corpus looks like, column by column, gathered while it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

MOST_DISTINCT = 1000


@dataclass(slots=True)
class ColumnProfile:
    """What was seen of one column so far."""

    type: str
    nulls: int = 0
    rows: int = 0
    distinct: set[Any] | None = field(default_factory=set)
    length_least: int | None = None
    length_most: int | None = None
    length_sum: int = 0

    def add(self, column: pa.ChunkedArray) -> None:
        """Looks at more rows."""
        import pyarrow as pa
        import pyarrow.compute as pc

        self.rows += len(column)
        self.nulls += column.null_count
        if self.distinct is not None and not pa.types.is_nested(column.type):
            self.distinct.update(value for value in pc.unique(column).to_pylist() if value is not None)
            if len(self.distinct) > MOST_DISTINCT:
                self.distinct = None
        if pa.types.is_string(column.type) and column.null_count < len(column):
            lengths = pc.utf8_length(column)
            ends = pc.min_max(lengths).as_py()
            self.length_least = min(ends["min"], ends["min"] if self.length_least is None else self.length_least)
            self.length_most = max(ends["max"], self.length_most or 0)
            self.length_sum += pc.sum(lengths).as_py()

    def to_json(self) -> dict[str, Any]:
        """Returns type, nulls, distinct values (at most 1000 are told apart), and lengths in characters of text."""
        found: dict[str, Any] = {
            "type": self.type,
            "nulls": self.nulls,
            "distinct": MOST_DISTINCT if self.distinct is None else len(self.distinct),
            "distinct_is_more": self.distinct is None,
        }
        if self.length_least is not None:
            mean = round(self.length_sum / max(self.rows - self.nulls, 1), 1)
            found["length"] = {"least": self.length_least, "mean": mean, "most": self.length_most}
        return found


class Profile:
    """The columns of a corpus."""

    def __init__(self, schema: pa.Schema) -> None:
        self._columns = {one.name: ColumnProfile(type=str(one.type)) for one in schema}

    def add(self, rows: pa.Table) -> None:
        """Looks at more rows."""
        for name, column in self._columns.items():
            column.add(rows.column(name))

    def to_json(self) -> dict[str, Any]:
        """Returns what was seen, by column."""
        return {name: column.to_json() for name, column in self._columns.items()}
