"""Accuracy on pairs: counted by hand, with equal ratings wrong."""

from __future__ import annotations

import pyarrow as pa
import pytest
from espalier_metrics import PreferenceAccuracy
from espalier_metrics.classification import NoOptions
from espalier_sdk import DataError
from espalier_sdk.testing import check_metric


def test_it_passes_the_kit_with_the_share_counted_by_hand() -> None:
    rated = pa.table({"rating": [1.5, -0.2, 0.3, 0.0], "other_rating": [0.5, -0.1, 0.3, -4.0]})
    check_metric("preference-accuracy", rated, expected={"preference_accuracy": 0.5})


def test_predictions_without_a_second_answer_are_refused_with_the_remedy() -> None:
    with pytest.raises(DataError, match="'other_rating'") as refused:
        PreferenceAccuracy(NoOptions()).values(pa.table({"rating": [1.0]}))
    assert "`rejected` in the task's config" in str(refused.value.problems[0].remedy)
