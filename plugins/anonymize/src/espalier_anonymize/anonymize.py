"""The transform `anonymize`: which columns, which kinds, and what stands in place of what was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from espalier_sdk.choice import PluginConfig
from espalier_sdk.columns import RESERVED_PREFIX
from espalier_sdk.errors import DataError
from espalier_sdk.model import SPLITS, Split
from pydantic import Field, field_validator

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["email", "phone", "card", "iban", "ip", "url"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class AnonymizeConfig(PluginConfig):
    """What is looked for, where, and what is written in its place."""

    columns: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="The columns that are searched; default: all columns of text."
    )
    kinds: tuple[Kind, ...] = Field(default=KINDS, min_length=1, description="What is looked for.")
    regions: tuple[str, ...] = Field(
        default=("US", "GB", "DE", "FR", "ES"),
        description="Countries whose phone numbers are known without +country; each costs time.",
    )
    style: Literal["placeholder", "remove"] = Field(
        default="placeholder", description="placeholder: `<EMAIL>`, `<PHONE>` ...; remove: nothing."
    )

    @field_validator("regions")
    @classmethod
    def _codes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [region for region in value if not (len(region) == 2 and region.isascii() and region.isupper())]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: must be two capital letters, as US or DE")
        return value


class Anonymize:
    """Replaces personal data in text by the name of its kind.

    Finds what has a pattern (Presidio's recognisers, without a language model): no names, no addresses. Acts on all
    splits and at serving, so that a model sees the same kind of text everywhere. Drops no row.
    """

    contract: ClassVar[int] = 1
    Config: ClassVar[type[AnonymizeConfig]] = AnonymizeConfig
    kind: ClassVar[Literal["record"]] = "record"
    at_serving: ClassVar[bool] = True
    rewrites_text: ClassVar[bool] = True

    def __init__(self, config: AnonymizeConfig) -> None:
        self.config = config

    @property
    def splits(self) -> frozenset[Split]:
        """Returns all splits."""
        return frozenset(SPLITS)

    def apply(self, rows: pa.Table) -> pa.Table:
        """Returns rows without personal data; DataError where a chosen column holds no text."""
        import pyarrow as pa

        replace: Callable[[str], str] | None = None
        for name in self._columns(rows):
            column = rows.column(name)
            if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
                raise DataError(
                    f"column {name!r} holds {column.type}, not text", field=name, accepted="a column of text"
                )
            replace = replace or self._replacer()
            texts = pa.array([text and replace(text) for text in column.to_pylist()], pa.string())
            rows = rows.set_column(rows.column_names.index(name), name, texts)
        return rows

    def _columns(self, rows: pa.Table) -> list[str]:
        import pyarrow as pa

        if self.config.columns is not None:  # at serving only a task's columns are there
            return [name for name in self.config.columns if name in rows.column_names]
        texts = (pa.string(), pa.large_string())
        return [
            field.name for field in rows.schema if field.type in texts and not field.name.startswith(RESERVED_PREFIX)
        ]

    def _replacer(self) -> Callable[[str], str]:
        from espalier_anonymize.finding import finder

        find, style = finder(self.config.kinds, self.config.regions), self.config.style

        def replace(text: str) -> str:
            pieces, done = [], 0
            for span in find(text):
                pieces += [text[done : span.start], f"<{span.kind.upper()}>" if style == "placeholder" else ""]
                done = span.end
            return "".join((*pieces, text[done:])) if pieces else text

        return replace
