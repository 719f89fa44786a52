"""How good a classifier or a regression is, computed from its predictions."""

from __future__ import annotations

from espalier_metrics.classification import F1, Accuracy, ConfusionMatrix, Precision, Recall
from espalier_metrics.regression import R2, MeanAbsoluteError, RootMeanSquaredError, Spearman

__all__ = [
    "F1",
    "R2",
    "Accuracy",
    "ConfusionMatrix",
    "MeanAbsoluteError",
    "Precision",
    "Recall",
    "RootMeanSquaredError",
    "Spearman",
]
