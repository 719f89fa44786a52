"""Policies: the kits and defects that they find, whom a reward is asked of, and the published advantages."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from espalier_learners import Grpo, Rloo
from espalier_learners.questions import encode_questions, rewards_of
from espalier_sdk import Budget, DataError, Head, Parts, SpecError
from espalier_sdk.testing import check_learner
from espalier_sdk.testing.fakes import FakeDistribution
from espalier_sdk.testing.tiny import tiny, write_tokenizer

from .asked import Asked, Texts
from .test_learners_dpo import ROWS

JUDGE = Head("sequence-classification", outputs=1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    found = AutoTokenizer.from_pretrained(folder)
    found.eos_token = "[SEP]"
    return found


def test_grpo_passes_the_kit() -> None:
    check_learner("grpo", rows=ROWS, task=Asked())


def test_rloo_passes_the_kit() -> None:
    check_learner("rloo", rows=ROWS, task=Asked())


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Installs a learner with one defect, and returns its name."""

    def run(base: str, defect: str) -> str:
        package = f"acme_learner_{abs(hash((base, defect)))}"
        source = f"from espalier_learners import {base}\n\n\nclass Wrong({base}):\n" + textwrap.indent(defect, "    ")
        FakeDistribution(package, source, {"espalier.learners": {"zz-kit": f"{package}:Wrong"}}).install(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr("espalier_sdk.testing.plugin._check_light_import", lambda module, heavy: None)
        return "zz-kit"

    return run


@pytest.mark.parametrize(
    ("base", "defect", "words"),
    [
        ("Grpo", 'auxiliaries = {"base": "sequence-classification"}', "the role base, which is an input of every"),
        (
            "Grpo",
            "def inputs(self, parts):\n    found = dict(super().inputs(parts))\n"
            "    parts.auxiliaries['reward'][0].score.weight.data.add_(1)\n    return found",
            "training changes reward: score.weight",
        ),
        (
            "Rloo",
            "def inputs(self, parts):\n    parts.reference.lm_head.weight.data.mul_(2)\n"
            "    return super().inputs(parts)",
            "training changes the reference: ",
        ),
        (
            "Rloo",
            "def inputs(self, parts):\n    found = dict(super().inputs(parts))\n"
            "    found['reward_funcs'] = lambda prompts, **_: [1.0] * len(prompts)\n    return found",
            "the reward goes from 1.000 to 1.000",
        ),
        ("Grpo", "measures_loss = True", "measures_loss is True, and validation gives"),
        ("Reward", "measures_loss = False", "measures_loss is False, and validation gives"),
        (
            "Reward",
            "def inputs(self, parts):\n    return {**super().inputs(parts), 'callbacks': []}",
            "inputs() holds callbacks",
        ),
        (
            "Reward",
            "def arguments(self, common):\n    return super().arguments({**common, 'learning_rate': 0.0})",
            "changes learning_rate",
        ),
        (
            "Reward",
            "def trainer(self):\n    class Worse(super().trainer()):\n"
            "        def training_step(self, *given):\n"
            "            return super().training_step(*given) + self.state.global_step\n"
            "    return Worse",
            "the loss goes from",
        ),
    ],
    ids=[
        "a role of every training",
        "another model trained",
        "the reference trained",
        "no difference",
        "no loss",
        "no reward",
        "owned",
        "another rate",
        "uphill",
    ],
)
def test_the_kit_finds_the_defect(install: Callable[[str, str], str], base: str, defect: str, words: str) -> None:
    with pytest.raises(AssertionError) as found:
        check_learner(install(base, defect), rows=ROWS, task=Asked())
    assert words in str(found.value)


def test_answers_are_not_needed_and_a_task_without_questions_is_refused(tokenizer: Any) -> None:
    assert Grpo(Grpo.Config()).columns(Asked()).required == {"prompt": "text"}
    told: dict[str, Any] = {"tokenizer": tokenizer, "budget": Budget(max_tokens=16)}
    rows = encode_questions(ROWS.select(["prompt"]).slice(0, 2), task=Asked(), **told)
    assert rows.column("new_tokens").to_pylist() == [4, 4]
    with pytest.raises(SpecError, match="asks nothing that could be answered"):
        encode_questions(pa.table({"text": ["a"]}), task=Texts(), **told)


@pytest.mark.parametrize(
    ("outputs", "other", "words"), [(3, False, "gives 3 numbers"), (1, True, "reads other tokens than this model")]
)
def test_a_model_that_cannot_judge_is_refused_with_its_place(
    tokenizer: Any, outputs: int, other: bool, words: str
) -> None:
    judge = tiny("llama", Head("sequence-classification", outputs=outputs)).model
    reads = copy.deepcopy(tokenizer)
    if other:
        reads.add_tokens(["unheard"])
    parts = Parts(tiny("llama", Head("causal-lm")).model, tokenizer, auxiliaries={"reward": (judge, reads)})
    with pytest.raises(SpecError, match=words) as refused:
        Grpo(Grpo.Config()).inputs(parts)
    assert refused.value.problems[0].field == "auxiliaries.reward.from"


def test_a_reward_does_not_depend_on_what_stands_beside_it_and_more_than_it_can_read_is_refused() -> None:
    import torch

    judge: Any = tiny("llama", JUDGE).model.eval()
    ask = rewards_of(judge)
    alone = [ask(prompts=[[5, 6]], completion_ids=[said], trainer_state=None)[0] for said in ([7], [8, 9, 10, 3])]
    both = ask(prompts=[[5, 6]] * 2, completion_ids=[[7], [8, 9, 10, 3]], trainer_state=None)
    assert both == pytest.approx(alone, abs=1e-6)
    assert alone[1] == pytest.approx(judge(torch.tensor([[5, 6, 8, 9, 10, 3]])).logits.item(), abs=1e-6)
    with pytest.raises(DataError, match="have 66 tokens, the reward model reads 64"):
        ask(prompts=[[5] * 60], completion_ids=[[6] * 6], trainer_state=None)


@pytest.mark.parametrize("learner", [Grpo, Rloo])
def test_advantages_are_those_of_the_paper(tokenizer: Any, tmp_path: Path, learner: type[Any]) -> None:
    """Expected, of rewards r of a question's answers: (r - mean) / (deviation + 1e-4) for GRPO, whose loss adds beta
    times the reference's e^d - d - 1; for RLOO r - beta k less the mean of the others', k the summed log-ratio.
    """
    import torch

    base: Any = tiny("llama", Head("causal-lm")).model
    model, judge = copy.deepcopy(base), tiny("llama", JUDGE, seed=3).model.eval()
    with torch.no_grad():
        model.lm_head.weight.add_(0.3 * torch.randn_like(model.lm_head.weight))
    plugin = learner(learner.Config(answers=3, beta=0.5))
    told: dict[str, Any] = {"task": Asked(), "state": None, "tokenizer": tokenizer, "budget": Budget(max_tokens=16)}
    rows = plugin.encode(ROWS.slice(0, 2), **told).to_pylist()
    common = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": [], "seed": 1}
    trainer: Any = plugin.trainer()(
        model=model,
        args=plugin.arguments(common | {"per_device_train_batch_size": 2, "remove_unused_columns": False}),
        train_dataset=rows,
        processing_class=tokenizer,
        **plugin.inputs(Parts(model, tokenizer, base.requires_grad_(False), {"reward": (judge, tokenizer)})),
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    drawn = trainer._prepare_inputs(rows)
    asked, said, mask = drawn["prompt_ids"], drawn["completion_ids"], drawn["completion_mask"]
    assert asked.tolist() == [row["input_ids"] for row in rows for _ in range(3)]
    assert len({tuple(one) for one in said.tolist()}) > 3
    answers = [one[: int(length)] for one, length in zip(said.tolist(), mask.sum(dim=1), strict=True)]
    rewards = torch.tensor(rewards_of(judge)(asked.tolist(), answers, trainer_state=None)).view(2, 3)
    with torch.no_grad():
        own, reference = (_log_likelihoods(one, asked, said) for one in (model, base))
        loss = trainer.compute_loss(model, drawn).item()
    ratio = (own - reference) * mask
    if learner is Grpo:
        expected = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
        apart = (torch.exp(-ratio) + ratio - 1) * mask
        wanted = (0.5 * (apart.sum(1) / mask.sum(1)) - expected.flatten()).mean().item()
    else:
        worth = rewards - 0.5 * ratio.sum(dim=1).view(2, 3)
        expected = worth - (worth.sum(1, keepdim=True) - worth) / 2
        wanted = -expected.mean().item()
    assert drawn["advantages"].tolist() == pytest.approx(expected.flatten().tolist(), abs=1e-4)
    assert loss == pytest.approx(wanted, abs=1e-4)


def _log_likelihoods(model: Any, asked: Any, said: Any) -> Any:
    """Returns the log-likelihood of each token of the answers, `(answers, tokens)`."""
    import torch

    logits = model(input_ids=torch.cat([asked, said], dim=1)).logits[:, asked.shape[1] - 1 : -1]
    return torch.log_softmax(logits, dim=-1).gather(-1, said[..., None])[..., 0]
