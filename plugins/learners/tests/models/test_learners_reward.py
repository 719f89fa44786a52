"""A reward model from pairs: the kit, the published loss, and where an answer's reward is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from espalier_learners import Reward
from espalier_learners.pairs import PadPairs
from espalier_learners.reward import RewardConfig
from espalier_sdk import Budget, DataError, Parts, SpecError
from espalier_sdk.testing import check_learner
from espalier_sdk.testing.tiny import WORDS, tiny, write_tokenizer
from pydantic import ValidationError

from .asked import Asked, Texts
from .test_learners_dpo import ROWS


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_reward_passes_the_kit() -> None:
    check_learner("reward", rows=ROWS, task=Asked())


def test_a_task_without_answers_is_refused() -> None:
    with pytest.raises(SpecError, match="no answers that could be compared"):
        Reward(RewardConfig()).columns(Texts())


def test_its_model_gives_one_number_whatever_the_task_writes() -> None:
    assert Reward.heads == {"causal-lm"}
    assert (Reward.head.kind, Reward.head.outputs) == ("sequence-classification", 1)


@pytest.mark.parametrize("centre", [0.0, 0.5])
def test_the_loss_is_that_of_the_paper_on_the_last_token_of_each_answer(
    tokenizer: Any, tmp_path: Path, centre: float
) -> None:
    """Expected: -log sigmoid(r_better - r_other) + centre (r_better + r_other)^2, each answer read without padding."""
    import torch

    model: Any = tiny("llama", Reward.head).model
    learner = Reward(RewardConfig(centre=centre))
    budget = Budget(max_tokens=16)
    rows = learner.encode(ROWS.slice(0, 3), task=Asked(), state=None, tokenizer=tokenizer, budget=budget).to_pylist()
    trainer: Any = learner.trainer()(
        model=model,
        args=learner.arguments({"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": []}),
        train_dataset=rows,
        processing_class=tokenizer,
        **learner.inputs(Parts(model=model, tokenizer=tokenizer)),
    )
    with torch.no_grad():
        loss = trainer.compute_loss(model, PadPairs(tokenizer, names=("input_ids", "attention_mask"))(rows))
        rewards = [
            [model(input_ids=torch.tensor([side])).logits[0, 0] for side in (ids[:cut], ids[cut:])]
            for ids, cut in ((row["input_ids"], row["chosen_tokens"]) for row in rows)
        ]
    better, other = torch.tensor(rewards).T
    expected = -torch.nn.functional.logsigmoid(better - other) + centre * (better + other) ** 2
    assert (better - other).abs().min() > 1e-5
    assert loss.item() == pytest.approx(expected.mean().item(), abs=1e-5)


RATED = pa.Table.from_pylist(
    [
        {"prompt": WORDS[place // 4], "chosen": " ".join(WORDS[8 + place % 4 : 12]), "stars": str(place % 4 // 2)}
        for place in range(16)
    ]
)


def test_rated_answers_pass_the_kit() -> None:
    check_learner("reward", config={"rating": "stars"}, rows=RATED, task=Asked())


def test_every_two_answers_to_one_question_whose_ratings_differ_are_a_pair(tokenizer: Any) -> None:
    learner = Reward(RewardConfig(rating="stars"))
    told: dict[str, Any] = {"task": Asked(), "state": None, "tokenizer": tokenizer, "budget": Budget(max_tokens=16)}
    said = [("0", "8 9", 1), ("0", "10", 3), ("1", "8", 5), ("0", "11", 1), ("0", "10", 1)]
    rows = pa.Table.from_pylist(
        [
            {"prompt": WORDS[int(asked)], "chosen": " ".join(WORDS[int(one)] for one in answer.split()), "stars": stars}
            for asked, answer, stars in said
        ]
    )
    found = learner.encode(rows, **told).to_pylist()
    assert learner.columns(Asked()).required == {"prompt": "text", "chosen": "answer", "stars": "value"}
    sides = [(row["input_ids"][: row["chosen_tokens"]], row["input_ids"][row["chosen_tokens"] :]) for row in found]
    assert sides == [([5, 15], [5, 13, 14]), ([5, 15], [5, 16])]  # not with itself under another rating
    assert [row["row"] for row in found] == [1, 1]
    with pytest.raises(DataError, match="no question has two answers with different ratings"):
        learner.encode(rows.slice(1, 2), **told)
    with pytest.raises(DataError, match="row 1: there is no answer"):
        learner.encode(rows.set_column(1, "chosen", pa.array(["a", None, "b", "c", "d"])), **told)


@pytest.mark.parametrize("value", [None, "good", "nan"])
def test_what_is_no_rating_is_refused_with_its_place(tokenizer: Any, value: Any) -> None:
    row = {"prompt": "a", "chosen": "b", "stars": value, "espalier_origin": "stars.csv", "espalier_line": 4}
    told: dict[str, Any] = {"task": Asked(), "state": None, "tokenizer": tokenizer, "budget": Budget(max_tokens=16)}
    with pytest.raises(DataError, match="is no rating") as refused:
        Reward(RewardConfig(rating="stars")).encode(pa.Table.from_pylist([row]), **told)
    problem = refused.value.problems[0]
    assert (problem.file, problem.line, problem.field) == ("stars.csv", 4, "stars")


def test_pairs_and_ratings_at_once_are_refused() -> None:
    with pytest.raises(ValidationError, match="name `rejected`, the column of other answers, or `rating`"):
        RewardConfig(rejected="worse", rating="stars")
