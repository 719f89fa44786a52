"""What is answered, without torch: columns, fitted state, encoding, decoding, request and response."""

from __future__ import annotations

from espalier_tasks.classification import Classification, ClassificationConfig

__all__ = ["Classification", "ClassificationConfig"]
