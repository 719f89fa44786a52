"""The transformers engine against its kit, how it batches, and a real adapter merged."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from espalier_engine_transformers import TransformersEngine
from espalier_engine_transformers.engine import _until
from espalier_sdk import DataError, Head, Placement
from espalier_sdk.columns import LOGITS
from espalier_sdk.testing import check_engine
from espalier_sdk.testing.tiny import tiny, write_tokenizer


def test_transformers_engine_passes_its_kit_however_it_batches() -> None:
    check_engine("transformers", configs=[{"max_batch_rows": 1}, {"max_batch_tokens": 20, "max_batch_rows": 3}])


def _rows(lengths: list[int]) -> pa.Table:
    ids = [[5 + place % 50 for place in range(length)] for length in lengths]
    masks = [[1] * length for length in lengths]
    return pa.table({"input_ids": pa.array(ids, pa.list_(pa.int32())), "attention_mask": pa.array(masks)})


def _batches(lengths: list[int], **config: Any) -> list[list[int]]:
    engine = TransformersEngine(TransformersEngine.Config(**config))
    return [[lengths[place] for place in batch] for batch in engine._batches(_rows(lengths))]


def test_batches_go_from_long_to_short_and_keep_both_limits() -> None:
    assert _batches([3, 9, 4, 8, 1], max_batch_tokens=18, max_batch_rows=64) == [[9, 8], [4, 3, 1]]
    assert _batches([3, 3, 3], max_batch_rows=2) == [[3, 3], [3]]


def test_a_row_longer_than_the_limit_goes_alone() -> None:
    assert _batches([40, 2], max_batch_tokens=16) == [[40], [2]]


def test_answers_end_at_the_first_end_token() -> None:
    assert _until([7, 8, 3, 0, 0], {3}) == [7, 8, 3]
    assert _until([7, 8], {3}) == [7, 8]


def test_answers_per_span_are_start_and_end(tmp_path: Path) -> None:
    import torch

    model: Any = tiny("bert", Head("question-answering")).model.eval()
    model.save_pretrained(tmp_path)
    engine = TransformersEngine(TransformersEngine.Config())
    engine.open(tmp_path, head=Head("question-answering"), adapters={}, placement=Placement())
    rows = _rows([4, 2])
    found = asyncio.run(engine.forward(rows, adapter=None)).column(LOGITS).to_pylist()
    with torch.no_grad():
        output = model(input_ids=torch.tensor([rows.column("input_ids")[1].as_py()]))
    wanted = torch.stack((output.start_logits[0], output.end_logits[0]), dim=-1)
    assert torch.allclose(torch.tensor(found[1]), wanted, atol=1e-5)


def test_unknown_adapter_is_refused_with_what_is_open(tmp_path: Path) -> None:
    head = Head("sequence-classification", outputs=3)
    tiny("bert", head).model.save_pretrained(tmp_path)  # type: ignore[operator]
    write_tokenizer(tmp_path)
    engine = TransformersEngine(TransformersEngine.Config())
    engine.open(tmp_path, head=head, adapters={}, placement=Placement())
    with pytest.raises(DataError, match="adapter other is not open"):
        asyncio.run(engine.forward(_rows([3]), adapter="other"))


def test_opening_a_model_writes_nothing_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    head = Head("sequence-classification", outputs=3)
    tiny("bert", head).model.save_pretrained(tmp_path)  # type: ignore[operator]
    capfd.readouterr()
    TransformersEngine(TransformersEngine.Config()).open(tmp_path, head=head, adapters={}, placement=Placement())
    assert capfd.readouterr() == ("", "")
