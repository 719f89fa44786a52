"""How good a classifier is, computed from its predictions: accuracy, precision, recall, F1, confusion matrix."""

from __future__ import annotations

from espalier_metrics.classification import F1, Accuracy, ConfusionMatrix, Precision, Recall
from espalier_metrics.entities import EntityF1
from espalier_metrics.squad import Squad

__all__ = ["F1", "Accuracy", "ConfusionMatrix", "EntityF1", "Precision", "Recall", "Squad"]
