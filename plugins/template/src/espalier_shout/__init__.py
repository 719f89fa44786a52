"""The transform `shout`: text columns in capitals."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from espalier_sdk import DataError, PluginConfig, Split
from pydantic import Field

if TYPE_CHECKING:
    import pyarrow as pa


class ShoutConfig(PluginConfig):
    """Which columns are changed."""

    columns: tuple[str, ...] = Field(min_length=1, description="Text columns that are written in capitals.")


class Shout:
    """Writes text columns in capitals."""

    contract: ClassVar[int] = 1
    kind: ClassVar[Literal["record"]] = "record"
    at_serving: ClassVar[bool] = True  # a question is changed like the rows that the model learned from
    Config: ClassVar[type[ShoutConfig]] = ShoutConfig

    def __init__(self, config: ShoutConfig) -> None:
        self.config = config

    @property
    def splits(self) -> frozenset[Split]:
        """Returns the splits that are changed: all."""
        return frozenset({"train", "validation", "test"})

    def apply(self, rows: pa.Table) -> pa.Table:
        """Returns the rows with the columns in capitals; DataError where a column is not there."""
        import pyarrow.compute as pc

        for name in self.config.columns:
            if name not in rows.column_names:
                raise DataError(f"there is no column {name!r}", field=name, accepted=", ".join(rows.column_names))
            place = rows.column_names.index(name)
            rows = rows.set_column(place, name, pc.utf8_upper(rows.column(name)))
        return rows
