"""The options of the source `files`."""

from __future__ import annotations

from typing import Any, Literal, Self

from espalier_sdk.choice import PluginConfig
from pydantic import Field, field_validator, model_validator

Format = Literal["csv", "tsv", "jsonl", "json", "parquet", "txt"]


class FilesConfig(PluginConfig):
    """Which files are read, and how."""

    paths: tuple[str, ...] = Field(min_length=1, description="Files, folders and globs, read in this order.")
    format: Format | None = Field(default=None, description="The format of all files; default: by each file's ending.")
    encoding: str | None = Field(default=None, description="The encoding of text files; default: detected.")
    delimiter: str | None = Field(
        default=None, min_length=1, max_length=1, description="csv, tsv: what parts fields; default: detected."
    )
    quote: str | None = Field(
        default=None, max_length=1, description="csv, tsv: what surrounds fields, '' for nothing; default: detected."
    )
    columns: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Names of the columns of files without a header, or of rows that are lists.",
    )
    records: str | None = Field(
        default=None, description="json: the key under which the list of rows is, dotted; default: every list is read."
    )
    key_column: str = Field(
        default="key", description="json: with several lists of rows, the column that says which list a row is from."
    )
    text_column: str = Field(default="text", description="txt, and json rows that are bare text: the column's name.")
    rows: Literal["line", "file"] = Field(default="line", description="txt: a row for each line, or for each file.")

    @field_validator("paths", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("paths")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not path.strip() for path in value):
            raise ValueError("a path is empty: name a file, a folder or a glob")
        return value

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                "".encode(value)
            except LookupError:
                raise ValueError(
                    f"{value!r} is no encoding that Python knows; 'utf-8' and 'cp1252' are usual"
                ) from None
        return value

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            raise ValueError("columns must differ from each other")
        return self
