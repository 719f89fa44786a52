"""Splits, marks, order of steps and the check of columns, without Ray."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from espalier_preprocessing.applying import DROPPED, SPLIT, alive, apply_steps, drop_unusable, marked
from espalier_preprocessing.arranging import Arrangement, Step, arrange
from espalier_preprocessing.checking import check_columns
from espalier_preprocessing.repeating import Repeats
from espalier_preprocessing.splitting import refuse_empty, split_keys, splits_of
from espalier_runtime.specs.models import SplitSpec
from espalier_sdk.choice import Choice
from espalier_sdk.columns import ID, ROW
from espalier_sdk.errors import DataError
from espalier_sdk.model import SPLITS, Columns


class LongerThan:
    """A fake filter: drops texts that are not longer than a length."""

    kind: ClassVar[str] = "record"
    at_serving: ClassVar[bool] = False

    def __init__(self, length: int, splits: frozenset[str] = frozenset(SPLITS)) -> None:
        self.length, self.splits = length, splits

    def apply(self, rows: pa.Table) -> pa.Table:
        return rows.filter(
            pa.array([len(text or "") > self.length for text in rows.column("text").to_pylist()], pa.bool_())
        )


def corpus(*texts: str | None, splits: list[str] | None = None) -> pa.Table:
    rows = pa.table({"text": pa.array(texts, pa.string()), ROW: range(len(texts))})
    return marked(rows if splits is None else rows.append_column(SPLIT, [splits]))


def step(name: str, plugin: Any, state: Any = None) -> Step:
    return Step(name, Choice(name="fake"), plugin, state)


def test_shares_of_a_split_by_hash_are_kept_and_do_not_depend_on_what_else_is_there() -> None:
    split = SplitSpec(test=0.2, validation=0.1)
    keys = [f"id:{place}" for place in range(10_000)]
    places = splits_of(keys, split)
    shares = {name: count / 10_000 for name, count in Counter(places).items()}
    assert shares == pytest.approx({"train": 0.7, "validation": 0.1, "test": 0.2}, abs=0.015)
    assert splits_of(keys[5:9], split) == places[5:9]
    assert splits_of(keys, SplitSpec(test=0.2, validation=0.1, salt="other")) != places


def test_rows_of_a_group_have_one_key_and_rows_without_one_their_own() -> None:
    rows = pa.table({"customer": ["a", "a", None, ""], ID: ["1", "2", "3", "4"]})
    assert split_keys(rows, SplitSpec(group="customer")) == ["group:a", "group:a", "id:3", "id:4"]


def test_a_column_says_the_split_in_the_usual_words() -> None:
    split = SplitSpec(by="column", column="part")
    assert splits_of(["train", " Dev", "TEST", "val"], split) == ["train", "validation", "test", "validation"]
    with pytest.raises(DataError, match="column 'part' says 'oos', which is no split"):
        splits_of(["oos"], split)


def test_an_empty_split_is_refused_unless_it_was_not_asked_for() -> None:
    with pytest.raises(DataError, match=r"leaves validation and test empty \(rows: train 3") as refused:
        refuse_empty({"train": 3}, SplitSpec())
    assert "salt" in (refused.value.problems[0].remedy or "")
    refuse_empty({"train": 3}, SplitSpec(by="column", column="part", test=0, validation=0))
    with pytest.raises(DataError, match=r"column 'part'|split.test: 0"):
        refuse_empty({"train": 3, "validation": 1}, SplitSpec(by="column", column="part"))
    with pytest.raises(DataError, match="4 rows were dropped because their target is empty"):
        refuse_empty({"train": 3}, SplitSpec(), untargeted=4)


def test_dropped_rows_are_counted_for_the_step_that_dropped_them_and_the_order_stays() -> None:
    steps = [step("short", LongerThan(1)), step("shorter", LongerThan(3))]
    rows = apply_steps(corpus("a", "abcd", "ab", "abcde", "b"), steps)
    assert alive(rows).column("text").to_pylist() == ["abcd", "abcde"]
    assert rows.column(ROW).to_pylist() == [0, 1, 2, 3, 4]
    assert rows.column(DROPPED).to_pylist() == ["short", None, "shorter", None, "short"]


def test_a_step_that_names_splits_leaves_the_others_alone() -> None:
    rows = corpus("a", "b", "abc", "c", splits=["train", "test", "train", "validation"])
    left = alive(apply_steps(rows, [step("thin", LongerThan(1, frozenset({"train"})))]))
    assert left.column("text").to_pylist() == ["b", "abc", "c"]


def test_rows_without_target_or_without_any_text_are_dropped() -> None:
    rows = marked(
        pa.table({"a": ["x", "", None, "y"], "b": ["", " ", None, None], "n": [1, 2, 3, None], ROW: [0, 1, 2, 3]})
    )
    done = drop_unusable(rows, {"a": "text", "b": "text", "n": "label"})
    assert done.column(DROPPED).to_pylist() == [None, "no text", "no text", "no target"]


def test_rows_of_a_split_may_lack_a_target_that_nobody_learns_from_there() -> None:
    rows = pa.table({"q": ["x", "y", "z"], "a": [None, " ", ""], SPLIT: ["train", "test", "train"], ROW: [0, 1, 2]})
    done = drop_unusable(marked(rows), {"q": "text", "a": "answer"}, optional={"a": ["train"]})
    assert done.column(DROPPED).to_pylist() == [None, "no target", None]


def test_joined_labels_may_be_none_and_a_list_that_is_missing_is_no_target() -> None:
    rows = pa.table({"q": ["x", "y", "z"], "some": ["a|b", "", None], "list": [["a"], [], None], ROW: [0, 1, 2]})
    done = drop_unusable(marked(rows), {"q": "text", "some": "labels"})
    assert done.column(DROPPED).null_count == 3
    assert done.column("some").to_pylist() == ["a|b", "", ""]
    done = drop_unusable(marked(rows), {"q": "text", "list": "labels"})
    assert done.column(DROPPED).to_pylist() == [None, None, "no target"]


def test_rows_whose_side_columns_are_empty_stay() -> None:
    rows = marked(pa.table({"a": ["x", "y"], "n": [None, 2], "c": ["", None], "t": ["1", ""], ROW: [0, 1]}))
    done = drop_unusable(rows, {"a": "text", "n": "number", "c": "category", "t": "value"})
    assert done.column(DROPPED).to_pylist() == [None, "no target"]


def test_everything_dropped_leaves_marks_only() -> None:
    rows = apply_steps(corpus("a", "b"), [step("all", LongerThan(9)), step("again", LongerThan(9))])
    assert alive(rows).num_rows == 0 and rows.column(DROPPED).to_pylist() == ["all", "all"]


def test_what_learns_or_names_splits_comes_after_the_split_in_its_order() -> None:
    everywhere, thinning = LongerThan(1), LongerThan(1, frozenset({"train"}))
    fitted, corpus_wide = SimpleNamespace(kind="fitted", splits=frozenset(SPLITS)), SimpleNamespace(kind="corpus")
    choices = [Choice(name=name) for name in ("missing", "filter", "filter", "deduplicate")]
    arranged = arrange(choices, [fitted, everywhere, thinning, corpus_wide])
    assert [one.name for one in arranged.early] == ["filter", "deduplicate"]
    assert [one.name for one in arranged.late] == ["missing", "filter-2"]


def test_every_column_that_is_asked_for_and_absent_is_listed_with_the_nearest_name() -> None:
    plugin = SimpleNamespace(kind="record", config=SimpleNamespace(columns={"mesage": 1, "queue": 2}))
    with pytest.raises(DataError) as refused:
        check_columns(
            ["message", "queue", "customer", "espalier_id"],
            task=Columns(required={"message": "text", "que": "label"}),
            split=SplitSpec(group="client"),
            steps=Arrangement((step("clean", plugin),), ()),
        )
    problems = {problem.field: problem for problem in refused.value.problems}
    assert set(problems) == {"que", "client", "mesage"}
    assert problems["que"].remedy == "did you mean 'queue'?" and problems["que"].accepted == "message, queue, customer"
    assert "clean needs" in problems["mesage"].message


def test_held_out_rows_that_read_as_one_of_train_are_counted_whatever_the_other_columns_say() -> None:
    seen = Repeats({"text": "text", "age": "number", "label": "label"})
    rows = {
        "train": [("a", 1.0, "x"), ("a", 1.0, "y"), ("b", 2.0, "x")],
        "validation": [("a", 1.0, "z"), ("a", 2.0, "x")],
        "test": [("b", 2.0, "x"), ("b", 2.0, "x"), ("c", None, "x")],
    }
    for split, some in rows.items():
        for row in some:  # however the rows are cut
            seen.see(split, pa.Table.from_pylist([dict(zip(("text", "age", "label"), row, strict=True))]))
    assert seen.counts() == {"validation": 1, "test": 2}
    assert Repeats({"text": "text"}).counts() == {"validation": 0, "test": 0}


def test_without_a_column_that_is_read_no_row_is_taken_for_another() -> None:
    seen = Repeats({"image": "pixels"})
    for split in SPLITS:
        seen.see(split, pa.table({"image": ["one"]}))
    assert seen.counts() == {"validation": 0, "test": 0}
