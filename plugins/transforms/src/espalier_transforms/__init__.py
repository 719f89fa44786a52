"""What happens to records and to the corpus: clean, filter, missing, encode, deduplicate."""

from __future__ import annotations

from espalier_transforms.clean import Clean, CleanConfig
from espalier_transforms.deduplicate import Deduplicate, DeduplicateConfig
from espalier_transforms.encode import Encode, EncodeConfig
from espalier_transforms.filter import Condition, Filter, FilterConfig
from espalier_transforms.missing import Missing, MissingConfig

__all__ = [
    "Clean",
    "CleanConfig",
    "Condition",
    "Deduplicate",
    "DeduplicateConfig",
    "Encode",
    "EncodeConfig",
    "Filter",
    "FilterConfig",
    "Missing",
    "MissingConfig",
]
