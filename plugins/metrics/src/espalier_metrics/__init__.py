"""How good a model is, computed from its predictions: labels, likelihood of text, written answers."""

from __future__ import annotations

from espalier_metrics.classification import F1, Accuracy, ConfusionMatrix, Precision, Recall
from espalier_metrics.likelihood import BitsPerByte, Perplexity
from espalier_metrics.texts import Chrf, ExactMatch, Rouge, TokenF1

__all__ = [
    "F1",
    "Accuracy",
    "BitsPerByte",
    "Chrf",
    "ConfusionMatrix",
    "ExactMatch",
    "Perplexity",
    "Precision",
    "Recall",
    "Rouge",
    "TokenF1",
]
