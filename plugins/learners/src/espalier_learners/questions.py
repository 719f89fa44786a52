"""Policies: models that answer questions while they train, and learn from what a reward model says to that.

Knows no loss: each learner names the trainer that it means. Answers are drawn for one batch of questions and used for
one step, by the very weights that the step changes (on-policy).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from espalier_sdk import Budget, Columns, DataError, HeadKind, Parts, SpecError
from espalier_sdk.columns import ENCODED_ROW

from espalier_learners.pieces import loss_bytes
from espalier_learners.prepared import kept_frozen

if TYPE_CHECKING:
    import pyarrow as pa
    from espalier_sdk.protocols import WritingTask
    from transformers import PreTrainedTokenizerBase as Tokenizer

REWARD = "reward"  # the role of the model that judges
_ROOM = "new_tokens"  # int64: how long an answer may become
# What is logged, by TRL's names and by the report's.
_SIGNALS = {
    "reward": "reward",
    "kl": "kl",
    "entropy": "entropy",
    "completions/mean_length": "answer_tokens",
    "completions/clipped_ratio": "answers_cut",
    "frac_reward_zero_std": "questions_without_difference",
}


class Policy:
    """What all learners of policies share: questions go in, another candidate's model judges the answers."""

    contract: ClassVar[int] = 1
    heads: ClassVar[frozenset[HeadKind]] = frozenset({"causal-lm"})
    auxiliaries: ClassVar[Mapping[str, HeadKind]] = {REWARD: "sequence-classification"}
    needs_reference: ClassVar[bool] = True
    measures_loss: ClassVar[bool] = False
    loss_bytes = staticmethod(loss_bytes)

    def columns(self, task: Any) -> Columns:
        """Returns the task's columns; answers may be left out."""
        return question_columns(task)

    def encode(self, rows: pa.Table, *, task: Any, state: Any, tokenizer: Tokenizer, budget: Budget) -> pa.Table:
        """Returns one row per question; SpecError where the task asks none."""
        return encode_questions(rows, task=task, tokenizer=tokenizer, budget=budget)

    def inputs(self, parts: Parts) -> Mapping[str, Any]:
        """Returns the reward and the reference."""
        return question_inputs(parts)


def question_columns(task: Any) -> Columns:
    """Returns the task's columns; answers may be left out, because the model writes its own."""
    known = task.columns()
    answers = {name: kind for name, kind in known.required.items() if kind == "answer"}
    required = {name: kind for name, kind in known.required.items() if name not in answers}
    return Columns(required=required, optional={**known.optional, **answers})


def encode_questions(rows: pa.Table, *, task: WritingTask, tokenizer: Tokenizer, budget: Budget) -> pa.Table:
    """Returns the tokens of each question, and how many an answer may have; SpecError where the task asks nothing."""
    import pyarrow as pa

    asked = task.questions(rows, tokenizer=tokenizer, budget=budget)
    if asked is None:
        raise SpecError(
            "the task asks nothing that could be answered",
            code="no_questions",
            field="learner",
            accepted="a task with questions, or chats",
            remedy="name `prompt` and `completion`, or `messages`, in the task's config",
        )
    room = task.settings(tokenizer=tokenizer, budget=budget)["max_new_tokens"]
    named = asked.select([ENCODED_ROW, "input_ids"])
    return named.append_column(_ROOM, pa.array([room] * asked.num_rows, pa.int64()))


def question_inputs(parts: Parts) -> Mapping[str, Any]:
    """Returns the reward and the reference; SpecError where the reward model reads other tokens or gives no number."""
    judge, tokenizer = parts.auxiliaries[REWARD]
    at = f"auxiliaries.{REWARD}.from"
    if judge.config.num_labels != 1:
        raise SpecError(
            f"the reward model gives {judge.config.num_labels} numbers for an answer, must be 1",
            field=at,
            remedy="name a candidate of the learner `reward`",
        )
    if tokenizer.get_vocab() != parts.tokenizer.get_vocab():
        raise SpecError(
            "the reward model reads other tokens than this model writes",
            field=at,
            remedy="let both start from the same base",
        )
    return {"reward_funcs": rewards_of(judge), "ref_model": parts.reference}


def rewards_of(judge: Any) -> Any:
    """Returns the function that TRL asks: tokens of questions and answers to one number each."""
    import torch

    padding = judge.config.get_text_config().pad_token_id or 0
    positions = getattr(judge.config.get_text_config(), "max_position_embeddings", None)

    def reward(
        prompts: Sequence[list[int]], completion_ids: Sequence[list[int]], trainer_state: Any, **_: Any
    ) -> list[float]:
        rows = [[*asked, *said] for asked, said in zip(prompts, completion_ids, strict=True)]
        width = max(len(row) for row in rows)
        if positions and width > positions:
            raise DataError(
                f"question and answer have {width} tokens, the reward model reads {positions}",
                field="training.max_tokens",
                remedy="lower max_tokens, or build the reward model on a base with more positions",
            )
        device = judge.device
        ids = torch.tensor([row + [padding] * (width - len(row)) for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        with torch.no_grad():
            found: list[float] = judge(input_ids=ids, attention_mask=mask).logits[:, 0].float().tolist()
        return found

    return reward


def on_questions(trainer: type[Any]) -> type[Any]:
    """Returns a subclass of a TRL trainer of policies that takes batches of encoded questions from any dataset.

    TRL's own repeats each question in its sampler and spreads its answers over batches, workers and steps. Here a batch
    holds questions, each is answered as often as is asked, and all its answers are compared where they were drawn: so
    order, batches and checkpoints are the service's. What is drawn depends on seed, step and questions alone.
    """
    import torch
    from datasets import Dataset
    from transformers import Trainer
    from trl.trainer.utils import add_fused_lm_head

    class OnQuestions(trainer):  # type: ignore[misc]
        """The trainer, told that its questions are encoded."""

        def __init__(
            self, *, model: Any, args: Any, train_dataset: Any, ref_model: Any, eval_dataset: Any = None, **given: Any
        ) -> None:
            beta, args.beta = args.beta, 0.0  # else TRL would look for a reference by a path, or add a second adapter
            args.max_completion_length = int(train_dataset[0][_ROOM])
            args.num_generations_eval = 1
            super().__init__(model=model, args=args, train_dataset=Dataset.from_dict({"prompt": [""]}), **given)
            self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
            self.beta = args.beta = beta
            args.steps_per_generation = 1
            if ref_model is not None:
                add_fused_lm_head(ref_model, temperature=self.temperature)
                self.ref_model = self.accelerator.prepare_model(ref_model, evaluation_mode=True)

        def get_train_dataloader(self) -> Any:
            """Returns batches of questions, as transformers makes them."""
            return Trainer.get_train_dataloader(self)

        def _get_train_sampler(self, *given: Any) -> Any:
            return Trainer._get_train_sampler(self, *given)

        def _get_eval_sampler(self, eval_dataset: Any) -> Any:
            return Trainer._get_eval_sampler(self, eval_dataset)

        def _tokenize_prompts(self, prompts: Sequence[list[int]]) -> Any:
            return list(prompts), None, {}

        def _prepare_inputs(self, inputs: Sequence[Mapping[str, Any]]) -> Any:
            training = self.model.training
            asked = [[int(token) for token in one["input_ids"]] for one in inputs]
            times = self.num_generations if training else self.num_generations_eval
            prompts = [{"prompt": ids} for ids in asked for _ in range(times)]
            with self._drawn(asked, self.state.global_step if training else None), kept_frozen(self.model):
                return self._generate_and_score_completions(prompts)

        @contextmanager
        def _drawn(self, asked: Sequence[list[int]], step: int | None) -> Iterator[None]:
            """Seeds what is drawn to these questions at a step; on validation it is the same at every step."""
            from zlib import crc32

            with torch.random.fork_rng():
                torch.manual_seed(crc32(f"{self.args.seed} {step} {asked}".encode()))
                yield

        def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[None, None, None]:
            """Measures rewards and what else is logged; a policy has no loss outside its own steps."""
            with torch.no_grad(), self.compute_loss_context_manager():
                self.compute_loss(model, self._prepare_inputs(inputs))
            return None, None, None

        def log(self, logs: dict[str, float], *given: Any, **more: Any) -> None:
            """Logs what tells how the policy fares, by plain names."""
            found = self._metrics["train" if self.model.training else "eval"]
            if not self.model.training:  # one answer to a question differs from none
                found.pop("frac_reward_zero_std", None)
            kept = {name: found[own] for own, name in _SIGNALS.items() if own in found}
            found.clear()
            found.update(kept)
            super().log(logs, *given, **more)

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Writes nothing: a model's card is the platform's."""

        def _send_telemetry(self) -> None:
            """Sends nothing."""

    return OnQuestions
