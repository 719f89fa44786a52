"""Ingestion and preprocessing on Ray: what they make, what they refuse, and that blocks and workers leave no trace."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from espalier_ingestion import reading
from espalier_ingestion.stage import STAGE as INGEST
from espalier_preprocessing import passing
from espalier_preprocessing.stage import STAGE as PREPROCESS
from espalier_runtime.job import Workplace, perform
from espalier_runtime.plugins import Plugins
from espalier_runtime.ray_session import Session
from espalier_runtime.request import ingest_request, preprocess_request
from espalier_runtime.specs import load_spec
from espalier_runtime.store import OpenArtifact, Store
from espalier_runtime.tables import read_parts
from espalier_sdk.errors import DataError
from espalier_sdk.testing import check_corpus_transform

pytestmark = pytest.mark.usefixtures("joined_ray")


TASK = {"name": "classification", "config": {"text": "message", "target": "queue"}}


class Bench:
    """A spec over some files, and the two stages run on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write_csv(self, name: str, rows: list[Mapping[str, Any]]) -> str:
        with (self.folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return name

    def workplace(self, **data: Any) -> Workplace:
        candidates = data.pop("candidates", {"a": {"strategy": "from-scratch"}})
        spec = {
            "name": "bench",
            "objective": {"task": data.pop("task", TASK), "metric": "macro_f1"},
            "data": {"tickets": {"sources": [{"name": "files", "config": {"paths": data.pop("paths")}}], **data}},
            "candidates": candidates,
        }
        path = self.folder / "spec.yaml"
        path.write_text(json.dumps(spec), encoding="utf-8")
        loaded, _ = load_spec(path)
        store = Store.open(str(self.folder / "store"))
        return Workplace(loaded, store, self.folder / "home", Plugins(), Session(cpus=2))

    def corpus(self, work: Workplace) -> OpenArtifact:
        manifest, _ = perform(ingest_request(work.spec, "tickets", work.plugins), INGEST.run, work)
        return work.store.open_artifact(manifest.ref())

    def dataset(self, work: Workplace) -> OpenArtifact:
        request = preprocess_request(
            work.spec, "tickets", work.spec.objective.task, self.corpus(work).ref, work.plugins
        )
        manifest, _ = perform(request, PREPROCESS.run, work)
        return work.store.open_artifact(manifest.ref())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def tickets(count: int = 120) -> list[dict[str, Any]]:
    queues = ["billing", "technical", "praise"]
    return [
        {
            "message": f"message {place} <b>of</b>  c{place % 40}@example.com",
            "queue": queues[place % 3],
            "customer": f"c{place % 40}",
        }
        for place in range(count)
    ]


def files_of(folder: Path) -> dict[str, str]:
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    assert found
    return found


def test_the_whole_path_makes_a_dataset_whose_rows_are_clean_split_and_counted(bench: Bench) -> None:
    rows = tickets()
    rows += [rows[3], rows[3] | {"customer": "new"}, {"message": "", "queue": "praise", "customer": "x"}]
    rows += [{"message": "whose?", "queue": "", "customer": "y"}]
    work = bench.workplace(
        paths=[bench.write_csv("tickets.csv", rows)],
        transforms=[
            "clean",
            "anonymize",
            {"name": "deduplicate", "config": {"columns": ["message", "queue", "customer"]}},
        ],
        split={"group": "customer"},
    )
    dataset = bench.dataset(work).folder
    splits = {name: read_parts(dataset / name) for name in ("train", "validation", "test")}
    assert sum(table.num_rows for table in splits.values()) == 121 and all(table.num_rows for table in splits.values())
    groups = [set(table.column("customer").to_pylist()) for table in splits.values()]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    assert splits["train"].column("message")[0].as_py().endswith("of <EMAIL>")
    for table in splits.values():
        places = table.column("espalier_row").to_pylist()
        assert places == sorted(places)
        assert table.schema == splits["train"].schema
    profile = json.loads((dataset / "profile.json").read_text(encoding="utf-8"))
    assert profile["dropped"] == {"clean": 0, "anonymize": 0, "deduplicate": 1, "no target": 1, "no text": 1}
    assert sum(profile["labels"]["train"].values()) == profile["rows"]["train"] == splits["train"].num_rows
    state = json.loads((dataset / "state.json").read_text(encoding="utf-8"))
    assert state["task"]["labels"] == ["billing", "praise", "technical"]
    assert [one["name"] for one in state["transforms"]] == ["clean", "anonymize"]


def test_files_of_different_columns_and_types_make_one_corpus_with_its_profile(bench: Bench) -> None:
    first = bench.write_csv("a.csv", [{"message": "one", "n": "1"}, {"message": "two", "n": "2"}])
    (bench.folder / "b.jsonl").write_text('{"message": "three", "n": 3, "more": [1]}\n', encoding="utf-8")
    corpus = bench.corpus(bench.workplace(paths=[first, "b.jsonl"]))
    rows = read_parts(corpus.folder / "documents")
    assert rows.select(["message", "n", "more", "espalier_origin", "espalier_line", "espalier_row"]).to_pylist() == [
        {"message": "one", "n": "1", "more": None, "espalier_origin": "a.csv", "espalier_line": 2, "espalier_row": 0},
        {"message": "two", "n": "2", "more": None, "espalier_origin": "a.csv", "espalier_line": 3, "espalier_row": 1},
        {
            "message": "three",
            "n": "3",
            "more": [1],
            "espalier_origin": "b.jsonl",
            "espalier_line": 1,
            "espalier_row": 2,
        },
    ]
    profile = json.loads((corpus.folder / "profile.json").read_text(encoding="utf-8"))
    assert profile["rows"] == {"read": 3, "kept": 3, "quarantined": 0}
    assert profile["notes"] == ["column 'n' holds string, int64 in different places: all of it became text"]


def test_bad_rows_below_the_limit_are_quarantined_with_file_and_line(bench: Bench) -> None:
    name = bench.write_csv("tickets.csv", tickets(40))
    with (bench.folder / name).open("a", encoding="utf-8") as file:
        file.write("a,row,with,too,many\n")
    corpus = bench.corpus(bench.workplace(paths=[name]))
    line = json.loads((corpus.folder / "quarantine.jsonl").read_text(encoding="utf-8"))
    assert line == {"origin": name, "line": 42, "error": "5 fields, the file has 3", "raw": "a,row,with,too,many"}
    assert corpus.manifest.metrics["quarantined"] == 1


def test_bad_rows_above_the_limit_end_the_stage_with_the_worst_and_keep_them(bench: Bench) -> None:
    name = bench.write_csv("tickets.csv", tickets(10))
    with (bench.folder / name).open("a", encoding="utf-8") as file:
        file.write("bad\n" * 7)
    with pytest.raises(DataError, match=r"7 of 17 rows cannot be read \(41.2%\), the limit is 5.0%") as refused:
        bench.corpus(bench.workplace(paths=[name]))
    problems = refused.value.problems
    assert len(problems) == 6 and problems[1].file == name and problems[1].line == 12
    kept = list((bench.folder / "store").rglob("quarantine.jsonl"))
    assert len(kept) == 1 and str(kept[0]) in problems[0].message
    assert len(kept[0].read_text(encoding="utf-8").splitlines()) == 7


def test_all_files_that_cannot_be_read_are_told_at_once(bench: Bench) -> None:
    (bench.folder / "a.json").write_text("{", encoding="utf-8")
    (bench.folder / "b.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError) as refused:
        bench.corpus(bench.workplace(paths=["a.json", "b.parquet", bench.write_csv("c.csv", tickets(3))]))
    assert [Path(problem.file or "").name for problem in refused.value.problems] == ["a.json", "b.parquet"]


def test_a_header_alone_is_no_data(bench: Bench) -> None:
    (bench.folder / "a.csv").write_text("message,queue\n", encoding="utf-8")
    with pytest.raises(DataError, match="no row at all"):
        bench.corpus(bench.workplace(paths=["a.csv"]))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            {"task": {"name": "classification", "config": {"text": "mesage", "target": "queue"}}},
            "no column 'mesage'.*did you mean 'message'",
        ),
        ({"split": {"group": "client"}}, "no column 'client'"),
        ({"transforms": [{"name": "clean", "config": {"columns": ["txt"]}}]}, "no column 'txt', which clean needs"),
        (
            {"transforms": [{"name": "filter", "config": {"columns": {"message": {"min_length": 9999}}}}]},
            r"nothing is left of 120 rows \(dropped by: filter 120",
        ),
        (
            {"transforms": [{"name": "filter", "config": {"columns": {"queue": {"equals": "praise"}}}}]},
            "only one class, 'praise'",
        ),
        ({"split": {"by": "column", "column": "queue"}}, "column 'queue' says 'billing', which is no split"),
        ({"split": {"test": 0.0001}}, "leaves test empty"),
        ({"transforms": [{"name": "missing", "config": {"columns": {"customer": "mean"}}}]}, "needs numbers"),
    ],
)
def test_what_cannot_become_a_dataset_is_refused_in_one_error(bench: Bench, change: dict[str, Any], what: str) -> None:
    work = bench.workplace(paths=[bench.write_csv("tickets.csv", tickets())], **change)
    with pytest.raises(DataError, match=what):
        bench.dataset(work)


def test_transforms_learn_from_train_alone_and_thin_only_the_splits_they_name(bench: Bench) -> None:
    rows = [
        row | {"part": ("train", "train", "dev", "test")[place % 4], "age": "" if place % 5 == 0 else str(place)}
        for place, row in enumerate(tickets())
    ]
    rows[3]["message"] = rows[61]["message"]  # the one in test, the other in train
    work = bench.workplace(
        paths=[bench.write_csv("tickets.csv", rows)],
        transforms=[
            {"name": "missing", "config": {"columns": {"age": "median"}}},
            {"name": "filter", "config": {"columns": {"age": {"at_least": 60}}, "splits": ["train"]}},
        ],
        split={"by": "column", "column": "part"},
    )
    dataset = bench.dataset(work).folder
    train = [int(row["age"]) for row in rows if row["part"] == "train" and row["age"]]
    median = (
        sorted(train)[len(train) // 2]
        if len(train) % 2
        else sum(sorted(train)[len(train) // 2 - 1 : len(train) // 2 + 1]) / 2
    )
    state = json.loads((dataset / "state.json").read_text(encoding="utf-8"))
    assert state["transforms"][0]["state"]["fills"] == {"age": median}
    assert read_parts(dataset / "test").num_rows == 30
    ages = [float(age) for age in read_parts(dataset / "train").column("age").to_pylist()]
    assert ages and min(ages) >= 60
    profile = json.loads((dataset / "profile.json").read_text(encoding="utf-8"))
    assert profile["dropped"]["filter"] == 60 - len(ages)
    assert profile["repeated"] == {"validation": 0, "test": 1}


def test_the_same_input_gives_the_same_bytes_however_it_is_cut(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tickets(300)
    paths = [
        bench.write_csv(f"part{place}.csv", rows[place * 100 : place * 100 + 100] + rows[:5]) for place in range(3)
    ]
    work = bench.workplace(
        paths=paths,
        transforms=[
            "clean",
            "deduplicate",
            "anonymize",
            {"name": "missing", "config": {"columns": {"customer": "most-frequent"}}},
        ],
    )
    first = {**files_of(bench.corpus(work).folder), **files_of(bench.dataset(work).folder)}
    monkeypatch.setattr(reading, "LEAST_BLOCKS", 1)
    monkeypatch.setattr(reading, "PARTS_PER_BLOCK", 3)
    monkeypatch.setattr(passing, "ROWS_PER_BLOCK", 7)
    again = Workplace(
        work.spec, Store.open(str(bench.folder / "other")), bench.folder / "home2", Plugins(), Session(cpus=1)
    )
    assert {**files_of(bench.corpus(again).folder), **files_of(bench.dataset(again).folder)} == first


def test_questions_alone_are_a_dataset_where_a_policy_learns_from_them_and_is_not_measured(bench: Bench) -> None:
    task = {"name": "generation", "config": {"prompt": "question", "completion": "answer"}}
    work = bench.workplace(
        paths=[bench.write_csv("asked.csv", [{"question": f"why {place}?"} for place in range(60)])],
        task=task,
        candidates={
            "a": {"strategy": "full-finetune", "base": "minilm", "learner": "grpo", "competes": False},
            "b": {"strategy": "from-scratch", "task": TASK},
        },
    )
    assert bench.dataset(work).manifest.metrics["rows"] == 60


def test_deduplicate_keeps_the_first_of_equal_rows_however_they_are_cut() -> None:
    rows = pa.table({"text": ["a", "b", "A ", "b", "a", "b"], "n": [1, 2, 1, 2, 3, 2]})
    check_corpus_transform("deduplicate", {}, rows, kept=[0, 1, 2, 4])
    check_corpus_transform("deduplicate", {"columns": ["text"]}, rows, kept=[0, 1, 2])
    check_corpus_transform("deduplicate", {"columns": ["text"], "normalise": True}, rows, kept=[0, 1])


def test_deduplicate_names_a_column_that_is_not_there(bench: Bench) -> None:
    work = bench.workplace(
        paths=[bench.write_csv("tickets.csv", tickets(9))],
        transforms=[{"name": "deduplicate", "config": {"columns": ["massage"]}}],
    )
    with pytest.raises(DataError, match=r"no column 'massage'.*did you mean 'message'"):
        bench.dataset(work)
