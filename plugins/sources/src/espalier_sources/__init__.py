"""Documents from files: csv, tsv, jsonl, json, parquet and txt, plain or compressed."""

from __future__ import annotations

from espalier_sources.config import FilesConfig
from espalier_sources.files import Files

__all__ = ["Files", "FilesConfig"]
