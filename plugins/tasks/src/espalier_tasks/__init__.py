"""What is answered, without torch: columns, fitted state, encoding, decoding, request and response."""

from __future__ import annotations

from espalier_tasks.classification import Classification, ClassificationConfig
from espalier_tasks.question_answering import QuestionAnswering, QuestionAnsweringConfig
from espalier_tasks.token_classification import TokenClassification, TokenClassificationConfig

__all__ = [
    "Classification",
    "ClassificationConfig",
    "QuestionAnswering",
    "QuestionAnsweringConfig",
    "TokenClassification",
    "TokenClassificationConfig",
]
