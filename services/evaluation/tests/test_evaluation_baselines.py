"""Baselines: words that tell the label are learned, and odd rows end nothing."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from espalier_evaluation.baselines import baselines, linear, most_frequent
from espalier_evaluation.bootstrap import measure
from espalier_evaluation.stage import STAGE
from espalier_runtime.job import Workplace, perform
from espalier_runtime.plugins import Plugins
from espalier_runtime.ray_session import Session
from espalier_runtime.request import evaluate_request
from espalier_runtime.specs import Spec
from espalier_runtime.store import Store
from espalier_runtime.tables import write_parts
from espalier_sdk import DataError

TASK: dict[str, Any] = {"name": "classification", "config": {"text": ["subject", "message"], "target": "queue"}}
WORDS = {"account": "password login reset", "billing": "invoice charge refund", "delivery": "parcel courier late"}


def rows(count: int, *, start: int = 0) -> pa.Table:
    """Returns rows of which every second one is about delivery; one word of the message tells the queue."""
    queues = [
        "delivery" if place % 2 else ("account", "billing")[place // 2 % 2] for place in range(start, start + count)
    ]
    texts = [f"my {WORDS[queue].split()[place % 3]} since monday" for place, queue in enumerate(queues, start)]
    return pa.table({"subject": ["hello"] * count, "message": texts, "queue": queues})


@dataclass
class Opened:
    manifest: Any


@dataclass
class Manifest:
    what: dict[str, Any]


@dataclass
class FakeJob:
    """What baselines read of a job."""

    inputs: dict[str, Opened]
    plugins: Plugins


def job(task: dict[str, Any] = TASK) -> Any:
    return FakeJob({"dataset": Opened(Manifest({"task": task}))}, Plugins())


def answered(train: pa.Table, asked: pa.Table) -> dict[str, pa.Table]:
    return {name: predictions for name, _, predictions in baselines(job(), train, asked)}


def share_right(predictions: pa.Table) -> float:
    pairs = list(
        zip(predictions.column("target").to_pylist(), predictions.column("prediction").to_pylist(), strict=True)
    )
    return sum(target == prediction for target, prediction in pairs) / len(pairs)


def test_the_linear_model_learns_words_that_tell_the_label_and_the_majority_does_not() -> None:
    found = answered(rows(60), rows(40, start=60))
    assert share_right(found["tf-idf-linear"]) == 1.0
    assert share_right(found["majority"]) == 0.5
    assert set(found["majority"].column("prediction").to_pylist()) == {"delivery"}


def test_scores_are_probabilities_of_the_given_label() -> None:
    found = answered(rows(60), rows(40, start=60))
    assert all(1 / 3 < score <= 1 for score in found["tf-idf-linear"].column("score").to_pylist())
    assert set(found["majority"].column("score").to_pylist()) == {0.5}


def test_the_most_frequent_label_is_the_first_by_name_of_equals() -> None:
    assert most_frequent(["b", "a", "b", "a", "c"]) == ("a", 0.4)


def test_missing_text_is_read_as_none_and_the_row_is_answered() -> None:
    schema = rows(1).schema
    train = pa.concat_tables([rows(60), pa.Table.from_pylist([{"queue": "delivery"}], schema)])
    asked = pa.Table.from_pylist([{"queue": "billing"}, {"subject": "refund", "queue": "billing"}], schema)
    found = answered(train, asked)
    assert found["tf-idf-linear"].column("prediction").to_pylist()[1] == "billing"
    assert found["tf-idf-linear"].num_rows == 2


def test_rows_without_a_target_teach_nothing_and_stay_without_one() -> None:
    none = pa.table({"subject": ["hello"] * 50, "message": ["my parcel"] * 50, "queue": pa.nulls(50, pa.string())})
    found = answered(pa.concat_tables([rows(60), none]), pa.concat_tables([rows(4), none.slice(0, 1)]))
    for predictions in found.values():
        assert predictions.column("target").to_pylist()[-1] is None
        assert "" not in predictions.column("prediction").to_pylist()
        assert predictions.column("prediction").null_count == 0


def test_labels_that_are_numbers_are_answered_as_text() -> None:
    train = rows(60).set_column(2, "queue", pa.array([place % 2 for place in range(60)]))
    found = answered(train, train)
    assert set(found["tf-idf-linear"].column("prediction").to_pylist()) == {"0", "1"}


@pytest.mark.parametrize("text", ["", "?", "!!", "a"])
def test_texts_without_any_word_give_the_most_frequent_label(text: str) -> None:
    assert linear([text] * 3, ["x", "y", "y"], ["anything", ""]) == [("y", 2 / 3)] * 2


SPEC = {
    "name": "tiny",
    "objective": {"task": TASK, "metric": "macro_f1"},
    "data": {"tickets": {"sources": ["files"]}},
    "candidates": {"one": {"strategy": "from-scratch"}},
    "evaluate": {"resamples": 100},
}


def place(folder: Path) -> Workplace:
    store = Store.open(str(folder / "store"))
    return Workplace(Spec.model_validate(SPEC), store, folder / "home", Plugins(), Session())


def evaluate(workplace: Workplace, validation: pa.Table) -> Any:
    attempt = workplace.store.begin("0" * 64)
    for split, table in {"train": rows(60), "validation": validation}.items():
        write_parts([table], attempt.folder / split)
    dataset = attempt.publish(kind="dataset", name="tickets", what={"task": TASK}).ref()
    request = evaluate_request(
        workplace.spec,
        name="baselines",
        split="validation",
        inputs={"dataset": dataset},
        plugins=workplace.plugins,
    )
    return perform(request, STAGE.run, workplace)[0]


def test_the_stage_measures_the_baselines_without_ray_and_leaves_figures_and_predictions(tmp_path: Path) -> None:
    workplace = place(tmp_path)
    manifest = evaluate(workplace, rows(40, start=60))
    folder = workplace.store.open_artifact(manifest.ref()).folder
    assert set(manifest.metrics) == {"tf-idf-linear", "majority"}
    for name, found in manifest.metrics.items():
        written = json.loads((folder / name / "metrics.json").read_text())
        assert written == {"rows": 40, "values": found["values"]}
        assert pq.read_table(folder / name / "predictions.parquet").num_rows == 40
    best = manifest.metrics["tf-idf-linear"]["values"]["accuracy"]
    assert best == {"value": 1.0, "low": 1.0, "high": 1.0, "error": 0.0}


def test_the_seconds_of_a_baseline_are_those_of_its_fit_without_the_bootstrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*given: Any, **named: Any) -> Any:
        time.sleep(0.5)
        return measure(*given, **named)

    monkeypatch.setattr("espalier_evaluation.stage.measure", slow)
    assert evaluate(place(tmp_path), rows(4, start=60)).metrics["majority"]["train_seconds"] < 0.5


def test_the_same_request_in_another_store_is_the_same_artifact(tmp_path: Path) -> None:
    refs = {evaluate(place(tmp_path / name), rows(40, start=60)).ref() for name in ("one", "two")}
    assert len(refs) == 1


def test_an_empty_split_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the validation split is empty"):
        evaluate(place(tmp_path), rows(1).slice(1))


NUMBERS: dict[str, Any] = {
    "name": "regression",
    "config": {"text": "message", "numeric": ["size"], "target": "hours"},
}


def numbers(count: int, *, start: int = 0) -> pa.Table:
    """Returns rows whose hours are 2 or 10 by a word, and as many more as the side column says."""
    places = range(start, start + count)
    sizes = [float(place * 7 % 5) for place in places]
    texts = [f"{'outage' if place % 2 else 'question'} since monday" for place in places]
    hours = [str((10 if place % 2 else 2) + size) for place, size in zip(places, sizes, strict=True)]
    vectors = pa.array([[size] for size in sizes], pa.list_(pa.float32()))
    return pa.table({"message": texts, "size": sizes, "side": vectors, "hours": hours})


def answered_numbers(train: pa.Table, asked: pa.Table) -> dict[str, list[float]]:
    found = baselines(job(NUMBERS), train, asked)
    return {name: predictions.column("prediction").to_pylist() for name, _, predictions in found}


def test_ridge_reads_words_and_side_columns_and_the_mean_reads_nothing() -> None:
    train, asked = numbers(200), numbers(40, start=201)
    wanted = [float(value) for value in asked.column("hours").to_pylist()]
    found = answered_numbers(train, asked)
    mean = sum(float(value) for value in train.column("hours").to_pylist()) / 200
    assert found["mean"] == pytest.approx([mean] * 40)
    assert max(abs(answer - value) for answer, value in zip(found["tf-idf-ridge"], wanted, strict=True)) < 0.5


def test_ridge_without_side_columns_or_words_is_the_mean() -> None:
    train = numbers(20).set_column(0, "message", [["!"] * 20])
    config = {"name": "regression", "config": {"text": "message", "target": "hours"}}
    found = {name: predictions for name, _, predictions in baselines(job(config), train, train)}
    assert found["tf-idf-ridge"].equals(found["mean"])


def test_numbers_without_a_target_teach_nothing_and_stay_without_one() -> None:
    schema = numbers(1).schema
    none = pa.Table.from_pylist([{"message": "outage", "size": 1.0, "side": [1.0], "hours": ""}], schema)
    for _, _, predictions in baselines(job(NUMBERS), pa.concat_tables([numbers(20), none]), none):
        assert predictions.column("target").to_pylist() == [None]
        assert predictions.column("prediction")[0].as_py() > 0


def test_several_labels_are_learned_one_versus_the_rest_and_the_majority_is_the_most_frequent_set() -> None:
    config = {"text": "message", "target": "queues", "multi_label": True, "separator": ";"}
    words = {"delivery": "parcel", "urgent": "now", "always": ""}

    def told(count: int) -> pa.Table:
        held = [
            [name for bit, name in enumerate(words) if name == "always" or place >> bit & 1] for place in range(count)
        ]
        texts = [f"hello {' '.join(words[name] for name in labels)} there" for labels in held]
        return pa.table({"message": texts, "queues": [";".join(labels) for labels in held]})

    train, asked = told(40), told(8)
    found = {
        name: predictions
        for name, _, predictions in baselines(job({"name": "classification", "config": config}), train, asked)
    }
    targets = [sorted(one) for one in found["tf-idf-linear"].column("target").to_pylist()]
    assert [sorted(one) for one in found["tf-idf-linear"].column("prediction").to_pylist()] == targets
    assert targets[3] == ["always", "delivery", "urgent"]
    assert found["majority"].column("prediction").to_pylist() == [["always"]] * 8


def test_a_word_gets_the_tag_that_it_has_most_often_and_a_new_word_the_most_frequent() -> None:
    config = {"tokens": "words", "tags": "tags"}
    kind = pa.list_(pa.string())
    words = [["Ada", "met", "ada"], ["ADA", "left"], ["met", "Bob"]]
    tags = [["B-PER", "O", "B-PER"], ["O", "O"], ["O", "B-PER"]]
    train = pa.table({"words": pa.array(words, kind), "tags": pa.array(tags, kind)})
    asked = pa.table({"words": pa.array([["ada", "saw", "bob"]], kind), "tags": pa.array([["O", "O", "O"]], kind)})
    told = list(baselines(job({"name": "token-classification", "config": config}), train, asked))
    assert [name for name, _, _ in told] == ["majority"]
    assert told[0][2].to_pydict() == {"target": [["O", "O", "O"]], "prediction": [["B-PER", "O", "B-PER"]]}
