"""Prepared rows by position, and the peak of memory."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from espalier_runtime.tables import read_parts, write_parts
from espalier_training.examples import Examples, _flat
from espalier_training.memory import PeakMemory

ROWS = [[1, 2, 3], [4], [], [5, 6], [7, 8, 9, 10]]


def table(start: int, stop: int) -> pa.Table:
    ids = ROWS[start:stop]
    return pa.table(
        {
            "row": pa.array(range(start, stop), pa.int64()),
            "input_ids": pa.array(ids, pa.list_(pa.int32())),
            "attention_mask": pa.array([[1] * len(one) for one in ids], pa.list_(pa.int8())),
            "labels": pa.array(range(start, stop), pa.int64()),
            "target": [f"label {place}" for place in range(start, stop)],
        }
    )


@pytest.mark.parametrize("rows_per_file", [50_000, 2, 1])
def test_rows_come_as_they_stand_in_the_files_however_those_are_cut(tmp_path: Path, rows_per_file: int) -> None:
    write_parts([table(0, 2), table(2, 5)], tmp_path, rows_per_file=rows_per_file)
    examples = Examples(tmp_path)
    stored = read_parts(tmp_path).to_pylist()
    assert len(examples) == len(stored) == 5
    for place, row in enumerate(stored):
        found = examples[place]
        assert set(found) == {"input_ids", "attention_mask", "labels"}
        assert list(found["input_ids"]) == row["input_ids"] == ROWS[place]
        assert list(found["attention_mask"]) == row["attention_mask"]
        assert found["labels"] == row["labels"]


def test_tokens_are_counted_over_all_rows(tmp_path: Path) -> None:
    write_parts([table(0, 5)], tmp_path)
    assert Examples(tmp_path).tokens == 10


def test_a_smaller_share_is_part_of_a_larger_one_and_another_seed_draws_others(tmp_path: Path) -> None:
    write_parts([table(0, 5)] * 20, tmp_path)
    stored = read_parts(tmp_path).column("input_ids").to_pylist()

    def drawn(share: float, seed: int = 0) -> list[int]:
        examples = Examples(tmp_path, share=share, seed=seed)
        assert len(examples) == round(100 * share)
        assert examples.whole == 100
        assert [list(examples[place]["input_ids"]) for place in range(len(examples))] == [
            stored[place] for place in examples._places
        ]
        assert examples.lengths() == [len(stored[place]) for place in examples._places]
        assert examples.tokens == sum(examples.lengths())
        return list(examples._places)

    assert set(drawn(0.1)) < set(drawn(0.35)) < set(drawn(0.9)) < set(range(100))
    assert drawn(0.35) != drawn(0.35, seed=1)
    assert len(Examples(tmp_path, share=0.001)) == 1, "never nothing"


@pytest.mark.parametrize(("start", "length"), [(0, 5), (1, 3), (3, 2), (4, 1)])
def test_list_offsets_are_right_after_slicing(start: int, length: int) -> None:
    column = table(0, 5).column("input_ids").slice(start, length)
    values, offsets = _flat(column)
    assert offsets is not None
    found = [list(values[offsets[place] : offsets[place + 1]]) for place in range(length)]
    assert found == ROWS[start : start + length]


def test_offsets_are_right_over_several_sliced_chunks() -> None:
    column = pa.chunked_array([pa.array(ROWS)[1:2], pa.array(ROWS)[3:5]])
    values, offsets = _flat(column)
    assert offsets is not None
    assert [list(values[low:high]) for low, high in pairwise(offsets)] == [
        ROWS[1],
        *ROWS[3:5],
    ]


def test_plain_columns_are_sliced_too() -> None:
    values, offsets = _flat(table(0, 5).column("labels").slice(2, 2))
    assert offsets is None
    assert values.tolist() == [2, 3]


def held() -> int:
    """Returns the bytes that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can reset the high-water mark")
def test_an_allocation_of_200_megabytes_is_seen_and_forgotten_by_the_next_block() -> None:
    before = held()
    with PeakMemory() as with_it:
        block = np.ones(200 * 2**20, np.uint8)
        assert block[-1] == 1
        del block
    with PeakMemory() as without:
        pass
    assert with_it.bytes - before >= 195 * 2**20
    assert with_it.bytes - without.bytes >= 150 * 2**20
