"""Learning from thumbs: the kit, the batch with its swapped answers, what is refused, and the published loss."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from espalier_learners import Kto
from espalier_learners.kto import KtoConfig, PadThumbs
from espalier_sdk import Budget, DataError, Head, Parts, SpecError
from espalier_sdk.testing import check_learner
from espalier_sdk.testing.tiny import WORDS, tiny, write_tokenizer

from .asked import Asked, Texts

ROWS = pa.Table.from_pylist(
    [
        {"prompt": WORDS[place], "chosen": " ".join(WORDS[side * 8 : side * 8 + 2 + place % 2]), "label": side == 0}
        for place in range(8)
        for side in (0, 1)
    ]
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def encode(rows: pa.Table, tokenizer: Any) -> pa.Table:
    budget = Budget(max_tokens=16)
    return Kto(KtoConfig()).encode(rows, task=Asked(), state=None, tokenizer=tokenizer, budget=budget)


def test_kto_passes_the_kit() -> None:
    check_learner("kto", rows=ROWS, task=Asked())


def test_beside_each_answer_stands_that_of_the_row_before_and_none_is_longer_than_the_batch(tokenizer: Any) -> None:
    rows = [
        {"input_ids": [5, 6, 10], "labels": [-100, -100, 10], "liked": True},
        {"input_ids": [7, 11, 12, 13], "labels": [-100, 11, 12, 13], "liked": False},
    ]
    batch = PadThumbs(tokenizer)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 10, 0], [7, 11, 12, 13]]
    assert batch["completion_mask"].tolist() == [[0, 0, 1, 0], [0, 1, 1, 1]]
    assert batch["KL_input_ids"].tolist() == [[5, 6, 11, 12], [7, 10, 0, 0]]
    assert batch["KL_attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["KL_completion_mask"].tolist() == [[0, 0, 1, 1], [0, 1, 0, 0]]
    assert batch["label"].tolist() == [True, False]


def test_only_the_last_answer_of_a_chat_was_judged(tokenizer: Any) -> None:
    labels = [-100, 8, -100, 9, 3]
    batch = PadThumbs(tokenizer)([{"input_ids": [5, 8, 6, 9, 3], "labels": labels, "liked": True}])
    assert batch["completion_mask"].tolist() == [[0, 0, 0, 1, 1]]


@pytest.mark.parametrize(("value", "liked"), [(True, True), ("false", False), (" TRUE ", True), (0, False)])
def test_thumbs_are_read_as_people_write_them(tokenizer: Any, value: Any, liked: bool) -> None:
    rows = pa.Table.from_pylist([{"prompt": WORDS[0], "chosen": WORDS[1], "label": value}])
    assert encode(rows, tokenizer).column("liked").to_pylist() == [liked]


@pytest.mark.parametrize("value", [None, "maybe", 3])
def test_what_is_no_thumb_is_refused_with_its_place(tokenizer: Any, value: Any) -> None:
    row = {"prompt": "a", "chosen": "b", "label": value, "espalier_origin": "thumbs.csv", "espalier_line": 4}
    with pytest.raises(DataError, match="says neither liked nor not") as refused:
        encode(pa.Table.from_pylist([row]), tokenizer)
    problem = refused.value.problems[0]
    assert (problem.file, problem.line, problem.field) == ("thumbs.csv", 4, "label")


def test_a_batch_of_one_and_a_task_without_answers_are_refused() -> None:
    with pytest.raises(SpecError, match="a batch of 1 has none"):
        Kto(KtoConfig()).arguments({"output_dir": "out", "per_device_train_batch_size": 1})
    with pytest.raises(SpecError, match="no answers"):
        Kto(KtoConfig()).columns(Texts())


def test_the_loss_is_that_of_the_paper(tokenizer: Any, tmp_path: Path) -> None:
    """Expected: w (1 - sigmoid(beta (r - z))) for liked, w (1 - sigmoid(beta (z - r))) for others, equation 8."""
    import torch

    torch.manual_seed(0)
    base = tiny("llama", Head("causal-lm")).model
    model = copy.deepcopy(base)
    with torch.no_grad():
        model.lm_head.weight.add_(0.3 * torch.randn_like(model.lm_head.weight))
    rows = encode(ROWS.slice(0, 4), tokenizer).to_pylist()
    learner = Kto(KtoConfig(beta=0.5, liked_weight=2.0))
    told = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": []}
    reference = copy.deepcopy(base).requires_grad_(False)
    trainer: Any = learner.trainer()(
        model=model,
        args=learner.arguments(told | {"per_device_train_batch_size": 4}),
        train_dataset=rows,
        processing_class=tokenizer,
        **learner.inputs(Parts(model=model, tokenizer=tokenizer, reference=reference)),
    )
    batch = PadThumbs(tokenizer)(rows)
    with torch.no_grad():
        loss = trainer.compute_loss(model, dict(batch))
        ratios = _likelihoods(model, batch, "") - _likelihoods(base, batch, "")
        gone = (_likelihoods(model, batch, "KL_") - _likelihoods(base, batch, "KL_")).mean().clamp(min=0)
    signs = batch["label"].float() * 2 - 1
    weights = batch["label"].float() + 1
    expected = (weights * (1 - torch.sigmoid(0.5 * signs * (ratios - gone)))).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


def _likelihoods(model: Any, batch: dict[str, Any], prefix: str) -> Any:
    """Returns the summed log-likelihood of each answer, `(rows,)`."""
    import torch

    ids = batch[f"{prefix}input_ids"]
    logits = model(input_ids=ids, attention_mask=batch[f"{prefix}attention_mask"]).logits[:, :-1]
    each = torch.log_softmax(logits, dim=-1).gather(-1, ids[:, 1:, None])[..., 0]
    return (each * batch[f"{prefix}completion_mask"][:, 1:]).sum(dim=1)
