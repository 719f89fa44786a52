"""How good a model is, computed from its predictions: labels, numbers, likelihood of text, written answers."""

from __future__ import annotations

from espalier_metrics.classification import F1, Accuracy, ConfusionMatrix, Precision, Recall
from espalier_metrics.entities import EntityF1
from espalier_metrics.likelihood import BitsPerByte, MaskedAccuracy, Perplexity
from espalier_metrics.preferences import PreferenceAccuracy
from espalier_metrics.regression import R2, MeanAbsoluteError, RootMeanSquaredError, Spearman
from espalier_metrics.squad import Squad
from espalier_metrics.texts import Chrf, ExactMatch, Rouge, TokenF1

__all__ = [
    "F1",
    "R2",
    "Accuracy",
    "BitsPerByte",
    "Chrf",
    "ConfusionMatrix",
    "EntityF1",
    "ExactMatch",
    "MaskedAccuracy",
    "MeanAbsoluteError",
    "Perplexity",
    "Precision",
    "PreferenceAccuracy",
    "Recall",
    "RootMeanSquaredError",
    "Rouge",
    "Spearman",
    "Squad",
    "TokenF1",
]
