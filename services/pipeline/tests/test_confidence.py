"""What a model's score is worth: thresholds with known values, and the wrong answers that it was sure of."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from espalier_pipeline import plots
from espalier_pipeline.confidence import Confidence, Threshold, confidence, sentences, thresholds
from espalier_runtime.store import Store
from espalier_runtime.tables import write_parts

TEXTS = ["lost my parcel", "refund please", "cannot log in", "where is it"]


def evaluated(place: Path, predictions: pa.Table) -> tuple[list[dict[str, str]], Store, str]:
    """Publishes a dataset and predictions on its validation split."""
    store = Store.open(str(place))
    attempt = store.begin("1" * 64)
    ids = [f"{number:032x}" for number in range(4)]
    rows = {"espalier_id": ids, "message": TEXTS, "queue": ["delivery", "billing", "account", "delivery"]}
    write_parts([pa.table(rows)], attempt.folder / "validation")
    dataset = attempt.publish(kind="dataset", name="tickets", what={}).ref()
    attempt = store.begin("2" * 64)
    pq.write_table(predictions.append_column("espalier_id", pa.array(ids)), attempt.folder / "predictions.parquet")
    ref = attempt.publish(kind="evaluation", name="full-validation", what={}).ref()
    return [{"stage": "evaluate", "name": "full-validation", "ref": str(ref)}], store, str(dataset)


def test_a_threshold_leaves_out_what_is_below_it_and_ties_stay_together() -> None:
    answers = [(0.9, True), (0.8, True), (0.8, False), (0.4, False), (0.3, True)]
    assert thresholds(answers) == [
        Threshold(0.3, 1.0, 3 / 5),
        Threshold(0.4, 0.8, 2 / 4),
        Threshold(0.8, 0.6, 2 / 3),
        Threshold(0.9, 0.2, 1.0),
    ]


def test_the_surest_wrong_answer_comes_first_with_its_text_and_without_the_label(tmp_path: Path) -> None:
    table = pa.table(
        {
            "target": ["delivery", "billing", "account", "delivery"],
            "prediction": ["billing", "billing", "billing", "delivery"],
            "score": pa.array([0.6, 0.9, 0.8, 0.95], pa.float32()),
        }
    )
    found = confidence(*_order(evaluated(tmp_path, table)))
    assert found is not None
    assert [(one["text"], one["prediction"]) for one in found.worst] == [
        ("cannot log in", "billing"),
        ("lost my parcel", "billing"),
    ]
    assert [target for target, _ in found.reached] == [0.90, 0.95, 0.99]
    assert found.reached[0][1].coverage == 0.5
    assert plots.coverage(found.curve).startswith("<svg")


def test_for_an_accuracy_that_all_answers_reach_no_abstaining_is_proposed() -> None:
    every, surest = Threshold(0.4, 1.0, 0.96), Threshold(0.8, 0.75, 1.0)
    found = Confidence((every, surest), ((0.90, every), (0.95, every), (0.99, surest)), ())
    free, sure = sentences(found)
    assert free == "96.0% of all answers are right: for 90% and 95% none has to be left out."
    assert sure.startswith("99% of the answers are right where those below a score of 0.8 are not given: 75% of the")
    assert "--abstain-below 0.8)" in sure


def test_the_threshold_that_is_printed_leaves_out_what_was_counted_as_left_out() -> None:
    """The scores of a sure model differ in their last digits."""
    scores = pa.array([0.99994, 0.99995, 0.99996], pa.float32()).to_pylist()
    curve = thresholds(list(zip(scores, (False, True, True), strict=True)))
    (said,) = sentences(Confidence(tuple(curve), ((0.99, curve[1]),), ()))
    told = float(said.partition("--abstain-below ")[2].rstrip(")."))
    assert [score >= told for score in scores] == [False, True, True]


def test_answers_without_a_score_or_that_are_no_labels_show_nothing(tmp_path: Path) -> None:
    numbers = pa.table({"target": [1.0] * 4, "prediction": [2.0] * 4, "score": [0.5] * 4})
    assert confidence(*_order(evaluated(tmp_path / "numbers", numbers))) is None
    unsure = pa.table({"target": ["a"] * 4, "prediction": ["a"] * 4})
    assert confidence(*_order(evaluated(tmp_path / "unsure", unsure))) is None


def _order(made: tuple[list[dict[str, str]], Store, str]) -> tuple[list[dict[str, str]], Store, str, str]:
    stages, store, dataset = made
    return stages, store, "full", dataset
