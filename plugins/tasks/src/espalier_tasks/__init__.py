"""What is answered, without torch: columns, fitted state, encoding, decoding, request and response."""

from __future__ import annotations

from espalier_tasks.classification import Classification, ClassificationConfig
from espalier_tasks.fill_mask import FillMask, FillMaskConfig
from espalier_tasks.generation import Generation, GenerationConfig
from espalier_tasks.question_answering import QuestionAnswering, QuestionAnsweringConfig
from espalier_tasks.regression import Regression, RegressionConfig
from espalier_tasks.token_classification import TokenClassification, TokenClassificationConfig

__all__ = [
    "Classification",
    "ClassificationConfig",
    "FillMask",
    "FillMaskConfig",
    "Generation",
    "GenerationConfig",
    "QuestionAnswering",
    "QuestionAnsweringConfig",
    "Regression",
    "RegressionConfig",
    "TokenClassification",
    "TokenClassificationConfig",
]
