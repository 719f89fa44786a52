"""The source `files`: which files there are, what identifies their content, and their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from espalier_sdk.artifacts import digest_of

from espalier_sources.config import FilesConfig
from espalier_sources.finding import FoundFile, find_files
from espalier_sources.streams import content_sha256

if TYPE_CHECKING:
    import pyarrow as pa
    from pydantic import JsonValue


class Files:
    """Files of one or several formats; each is a part that one worker reads as a stream."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[FilesConfig]] = FilesConfig

    def __init__(self, config: FilesConfig) -> None:
        self.config = config

    def fingerprint(self) -> str:
        """Returns a hash over the names and contents of all files in their order; DataError where one is not there."""
        return digest_of([[file.name, content_sha256(file.path)] for file in self._files()])

    def parts(self) -> Sequence[JsonValue]:
        """Returns a part for each file, in the order of `paths`; DataError where one is missing, empty or unknown."""
        return [dict(file.to_json()) for file in self._files()]

    def read(self, part: JsonValue) -> Iterator[pa.RecordBatch]:
        """Yields the rows of one file; DataError where the file as a whole cannot be read."""
        given: Any = part
        file = FoundFile(**given)
        if file.format in ("csv", "tsv"):
            from espalier_sources.delimited import read_delimited

            return read_delimited(file, self.config)
        if file.format in ("jsonl", "json"):
            from espalier_sources.json_files import read_json, read_jsonl

            return (read_jsonl if file.format == "jsonl" else read_json)(file, self.config)
        from espalier_sources.other_files import read_parquet, read_text

        return read_parquet(file) if file.format == "parquet" else read_text(file, self.config)

    def _files(self) -> list[FoundFile]:
        return find_files(self.config.paths, format=self.config.format)
