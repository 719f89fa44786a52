"""What is answered, without torch: columns, fitted state, encoding, decoding, request and response."""

from __future__ import annotations

from espalier_tasks.classification import Classification, ClassificationConfig
from espalier_tasks.generation import Generation, GenerationConfig
from espalier_tasks.regression import Regression, RegressionConfig

__all__ = [
    "Classification",
    "ClassificationConfig",
    "Generation",
    "GenerationConfig",
    "Regression",
    "RegressionConfig",
]
