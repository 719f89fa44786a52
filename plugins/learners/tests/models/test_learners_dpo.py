"""Learning from pairs: the kit, what is encoded, what is refused, and the published loss."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from espalier_learners import Dpo
from espalier_learners.dpo import DpoConfig
from espalier_learners.pairs import PadPairs, answer_column
from espalier_sdk import Budget, Columns, DataError, Head, Parts, SpecError
from espalier_sdk.testing import check_learner
from espalier_sdk.testing.tiny import WORDS, tiny, write_tokenizer

from .asked import Asked, Texts

ROWS = pa.Table.from_pylist(
    [
        {"prompt": WORDS[place], "chosen": " ".join(WORDS[:3]), "rejected": " ".join(WORDS[5 + place % 3 : 9])}
        for place in range(16)
    ]
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def encode(rows: pa.Table, tokenizer: Any, max_tokens: int = 16, **config: Any) -> pa.Table:
    budget = Budget(max_tokens=max_tokens)
    return Dpo(DpoConfig(**config)).encode(rows, task=Asked(), state=None, tokenizer=tokenizer, budget=budget)


def test_dpo_passes_the_kit() -> None:
    check_learner("dpo", rows=ROWS, task=Asked())


def test_a_pair_is_both_answers_to_one_question_with_the_loss_on_answers(tokenizer: Any) -> None:
    row = encode(ROWS.slice(0, 1), tokenizer).to_pylist()[0]
    words = {word: tokenizer.convert_tokens_to_ids(word) for word in WORDS[:10]}
    question, better = words[WORDS[0]], [words[word] for word in WORDS[:3]]
    worse = [words[word] for word in WORDS[5:9]]
    assert row["chosen_tokens"] == 4
    assert row["input_ids"] == [question, *better, question, *worse]
    assert row["labels"] == [-100, *better, -100, *worse]


def test_a_batch_has_the_better_answers_first_and_masks_questions_and_padding(tokenizer: Any) -> None:
    rows = encode(ROWS.slice(0, 2), tokenizer).to_pylist()
    batch = PadPairs(tokenizer)(rows)
    assert {name: tuple(value.shape) for name, value in batch.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "completion_mask"), (4, 5)
    )
    assert batch["attention_mask"].sum(dim=1).tolist() == [4, 4, 5, 4]
    assert batch["completion_mask"].tolist() == [[0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 1], [0, 1, 1, 1, 0]]


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "rejected", "is the same as 'chosen'"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "rejected", "there is no answer"),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "chosen", "there is no answer"),
    ],
)
def test_a_pair_that_says_nothing_is_refused_with_its_place(
    tokenizer: Any, row: dict[str, Any], field: str, words: str
) -> None:
    rows = pa.Table.from_pylist([row | {"espalier_origin": "pairs.csv", "espalier_line": 7}])
    with pytest.raises(DataError, match=words) as refused:
        encode(rows, tokenizer)
    problem = refused.value.problems[0]
    assert (problem.file, problem.line, problem.field) == ("pairs.csv", 7, field)


def test_answers_that_differ_behind_the_budget_only_are_refused(tokenizer: Any) -> None:
    start = " ".join(WORDS[:4])
    row = {"prompt": WORDS[0], "chosen": f"{start} {WORDS[5]}", "rejected": f"{start} {WORDS[6]}"}
    assert encode(pa.Table.from_pylist([row]), tokenizer, max_tokens=6).num_rows == 1
    with pytest.raises(DataError, match="row 0: both answers are the same up to max_tokens 5"):
        encode(pa.Table.from_pylist([row]), tokenizer, max_tokens=5)


def test_a_task_without_answers_is_refused() -> None:
    with pytest.raises(SpecError, match="no answers that could be compared"):
        Dpo(DpoConfig()).columns(Texts())
    assert Dpo(DpoConfig(rejected="worse")).columns(Asked()).required == {
        "prompt": "text",
        "chosen": "answer",
        "worse": "answer",
    }


def test_an_answer_beside_a_chat_is_what_is_compared_and_not_the_chat() -> None:
    class Chats(Asked):
        def columns(self) -> Columns:
            return Columns(required={"prompt": "messages", "chosen": "answer"})

    assert Dpo(DpoConfig(rejected="worse")).columns(Chats()).required["worse"] == "answer"
    assert answer_column(Chats()) == "chosen"


@pytest.mark.parametrize("adapted", [False, True], ids=["a copy", "adapter off"])
def test_the_loss_is_that_of_the_paper(tokenizer: Any, tmp_path: Path, adapted: bool) -> None:
    """Expected: -log sigmoid(beta (log-ratio of the better - log-ratio of the other)), equation 7."""
    import torch

    torch.manual_seed(0)
    base = tiny("llama", Head("causal-lm")).model
    model, reference = copy.deepcopy(base), copy.deepcopy(base).requires_grad_(False)
    if adapted:
        model, reference = _adapted(model), None
    else:
        with torch.no_grad():
            model.lm_head.weight.add_(0.3 * torch.randn_like(model.lm_head.weight))
    rows = encode(ROWS.slice(0, 3), tokenizer).to_pylist()
    learner = Dpo(DpoConfig(beta=0.5))
    trainer: Any = learner.trainer()(
        model=model,
        args=learner.arguments({"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": []}),
        train_dataset=rows,
        processing_class=tokenizer,
        **learner.inputs(Parts(model=model, tokenizer=tokenizer, reference=reference)),
    )
    batch = PadPairs(tokenizer)(rows)
    frozen = [name for name, one in model.named_parameters() if not one.requires_grad]
    with torch.no_grad():
        loss = trainer.compute_loss(model, dict(batch))
        ratios = _log_likelihoods(model, batch) - _log_likelihoods(base, batch)
    better, worse = ratios.chunk(2)
    assert ratios.abs().min() > 1e-4
    assert loss.item() == pytest.approx(-torch.nn.functional.logsigmoid(0.5 * (better - worse)).mean().item(), abs=1e-5)
    assert [name for name, one in model.named_parameters() if not one.requires_grad] == frozen
    if adapted:
        assert list(model.peft_config) == ["default"]


def _adapted(model: Any) -> Any:
    """Returns the model with an update that is not zero, of which one part is frozen as a control would do."""
    import torch
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="gaussian"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
                parameter.requires_grad_(".0." not in name)
    return adapted


def _log_likelihoods(model: Any, batch: dict[str, Any]) -> Any:
    """Returns the summed log-likelihood of each answer, `(2 x pairs,)`."""
    import torch

    ids = batch["input_ids"]
    logits = model(input_ids=ids, attention_mask=batch["attention_mask"]).logits[:, :-1]
    each = torch.log_softmax(logits, dim=-1).gather(-1, ids[:, 1:, None])[..., 0]
    return (each * batch["completion_mask"][:, 1:]).sum(dim=1)
