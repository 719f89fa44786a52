"""Metrics against scikit-learn, and what they say about odd predictions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from espalier_metrics import F1, Accuracy, ConfusionMatrix, Precision, Recall
from espalier_metrics.classification import NoOptions
from espalier_sdk.errors import DataError
from espalier_sdk.testing import check_metric
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support


def some_predictions(rows: int = 300, labels: int = 6, seed: int = 3) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    names = [f"queue {place}" for place in range(labels)] + ["never predicted", "never asked"]
    targets = [names[place] for place in rng.integers(0, labels + 1, rows)]
    answers = [
        target if rng.random() < 0.6 and target != "never predicted" else names[rng.integers(0, labels)]
        for target in targets
    ]
    answers[0] = "never asked"
    return targets, answers


def table(targets: list[str | None], answers: list[str]) -> pa.Table:
    return pa.table({"target": pa.array(targets, pa.string()), "prediction": pa.array(answers, pa.string())})


def reference(targets: list[str], answers: list[str]) -> dict[str, dict[str, float]]:
    """What scikit-learn says, under the names that the metrics use."""
    labels = sorted(set(targets) | set(answers))
    found: dict[str, dict[str, float]] = {"precision": {}, "recall": {}, "f1": {}}
    for average in ("macro", "weighted", "micro"):
        given = precision_recall_fscore_support(targets, answers, labels=labels, average=average, zero_division=0)
        for name, value in zip(found, given[:3], strict=True):
            found[name][f"{average}_{name}"] = float(value)
    each = precision_recall_fscore_support(targets, answers, labels=labels, average=None, zero_division=0)
    for name, values in zip(found, each[:3], strict=True):
        found[name].update({f"{name}/{label}": float(value) for label, value in zip(labels, values, strict=True)})
    found["accuracy"] = {"accuracy": float(accuracy_score(targets, answers))}
    cells = confusion_matrix(targets, answers, labels=labels)
    found["confusion-matrix"] = {
        f"confusion/{labels[row]}/{labels[column]}": float(cells[row, column])
        for row, column in zip(*cells.nonzero(), strict=True)
    }
    return found


@pytest.mark.parametrize("name", ["accuracy", "precision", "recall", "f1", "confusion-matrix"])
def test_each_metric_passes_its_kit_with_the_values_of_scikit_learn(name: str) -> None:
    targets, answers = some_predictions()
    check_metric(name, table(targets, answers), expected=reference(targets, answers)[name])


@pytest.mark.parametrize("seed", range(5))
def test_small_samples_with_absent_labels_agree_with_scikit_learn(seed: int) -> None:
    targets, answers = some_predictions(rows=7, labels=5, seed=seed)
    predictions, wanted = table(targets, answers), reference(targets, answers)
    for name, metric in (("precision", Precision), ("recall", Recall), ("f1", F1)):
        assert metric(NoOptions()).values(predictions) == pytest.approx(wanted[name])


def test_confusion_matrix_leaves_out_empty_cells_and_its_names_can_be_taken_apart() -> None:
    values = ConfusionMatrix(NoOptions()).values(table(["a/b", "c%"], ["c%", "c%"]))
    assert values == {"confusion/a%2Fb/c%25": 1.0, "confusion/c%25/c%25": 1.0}


def test_rows_without_a_target_are_left_out_of_values_and_wrong_in_rows() -> None:
    predictions = table(["a", None, "b"], ["a", "a", "a"])
    assert Accuracy(NoOptions()).values(predictions) == {"accuracy": 0.5}
    assert Accuracy(NoOptions()).rows(predictions) == [1.0, 0.0, 0.0]


def test_dictionary_columns_and_large_strings_give_the_same_values() -> None:
    targets, answers = some_predictions(rows=40)
    plain = table(targets, answers)
    coded = pa.table({name: plain.column(name).dictionary_encode() for name in plain.column_names})
    large = pa.table({name: plain.column(name).cast(pa.large_string()) for name in plain.column_names})
    wanted = F1(NoOptions()).values(plain)
    assert F1(NoOptions()).values(coded) == wanted
    assert F1(NoOptions()).values(large) == wanted


@pytest.mark.parametrize("targets", [[], [None, None]])
def test_predictions_without_any_target_are_refused(targets: list[None]) -> None:
    with pytest.raises(DataError, match="no prediction has a target"):
        F1(NoOptions()).values(table(targets, ["a"] * len(targets)))


def test_a_table_without_predictions_is_refused_with_what_is_there() -> None:
    with pytest.raises(DataError, match=r"no column 'prediction'.*target, other"):
        F1(NoOptions()).values(pa.table({"target": ["a"], "other": ["b"]}))


def some_sets(rows: int = 200) -> tuple[list[list[str]], list[list[str]]]:
    rng = np.random.default_rng(5)
    names = ["a", "b", "c", "never asked", "never predicted"]
    targets = [[name for name in (*names[:3], names[4]) if rng.random() < 0.4] for _ in range(rows)]
    answers = [[name for name in names[:4] if rng.random() < (0.7 if name in held else 0.2)] for held in targets]
    return targets, answers


@pytest.mark.parametrize("name", ["accuracy", "precision", "recall", "f1"])
def test_several_labels_per_row_have_the_values_of_scikit_learn(name: str) -> None:
    from sklearn.preprocessing import MultiLabelBinarizer

    targets, answers = some_sets()
    binarizer = MultiLabelBinarizer().fit(targets + answers)
    wanted, given = binarizer.transform(targets), binarizer.transform(answers)
    if name == "accuracy":
        expected = {"accuracy": float(accuracy_score(wanted, given))}
        expected |= {
            f"accuracy/{one}": float(accuracy_score(wanted[:, at], given[:, at]))
            for at, one in enumerate(binarizer.classes_)
        }
    else:
        place = ("precision", "recall", "f1").index(name)
        expected = {
            f"{average}_{name}": float(
                precision_recall_fscore_support(wanted, given, average=average, zero_division=0)[place]
            )
            for average in ("macro", "weighted", "micro")
        }
        each = precision_recall_fscore_support(wanted, given, average=None, zero_division=0)[place]
        expected |= {f"{name}/{one}": float(value) for one, value in zip(binarizer.classes_, each, strict=True)}
    kind = pa.list_(pa.string())
    check_metric(
        name, pa.table({"target": pa.array(targets, kind), "prediction": pa.array(answers, kind)}), expected=expected
    )


def test_rows_without_any_label_are_right_when_none_is_given_and_have_no_confusion() -> None:
    kind = pa.list_(pa.string())
    empty = pa.table({"target": pa.array([[], [], None], kind), "prediction": pa.array([[], ["a"], ["a"]], kind)})
    assert Accuracy(NoOptions()).values(empty) == {"accuracy": 0.5, "accuracy/a": 0.5}
    assert Accuracy(NoOptions()).rows(empty) == [1.0, 0.0, 0.0]
    assert F1(NoOptions()).values(empty)["micro_f1"] == 0.0
    assert F1(NoOptions()).values(empty.slice(0, 1)) == {"macro_f1": 0.0, "weighted_f1": 0.0, "micro_f1": 0.0}
    assert ConfusionMatrix(NoOptions()).values(empty) == {}
