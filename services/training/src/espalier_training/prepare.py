"""Preparing: a dataset's rows encoded once, with the tokenizer that does it, for all candidates that share both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from espalier_runtime.job import Job
from espalier_runtime.opening import Budget
from espalier_runtime.tables import iter_parts, read_parts, write_parts
from espalier_sdk.choice import Choice
from espalier_sdk.errors import DataError, SpecError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

SPLITS = ("train", "validation")


def prepare(job: Job) -> dict[str, Any]:
    """Writes `tokenizer/`, `train/`, `validation/` and `budget.json`; returns rows and tokens per split."""
    what = job.request.what
    dataset, base = job.inputs["dataset"].folder, job.inputs.get("base")
    task_choice = Choice.model_validate(what["task"])
    task = job.plugins.load("espalier.tasks", task_choice)
    learner = job.plugins.load("espalier.learners", Choice.model_validate(what["learner"]))
    assert job.request.candidate is not None
    strategy = job.plugins.load("espalier.model_strategies", job.spec.candidates[job.request.candidate].strategy)
    folder = job.out / "tokenizer"
    strategy.tokenizer(texts(dataset, task), base=base.folder if base else None, out=folder)
    tokenizer = settled(folder, task)
    longest = tokenizer.model_max_length
    if what["max_tokens"] > longest:
        raise SpecError(
            f"training.max_tokens {what['max_tokens']}: the model's tokenizer takes {longest} tokens at most",
            field=f"candidates.{job.request.candidate}.training.max_tokens",
            given=what["max_tokens"],
            accepted=f"up to {longest}",
            remedy="lower max_tokens, or raise the strategy's max_positions",
        )
    budget = Budget(max_tokens=what["max_tokens"], padding_side="right")
    state = type(task).State.model_validate(read_state(dataset)["task"])
    metrics: dict[str, Any] = {}
    for split in SPLITS:
        counted = _Counted(
            learner.encode(rows, task=task, state=state, tokenizer=tokenizer, budget=budget)
            for rows in _blocks(dataset / split, learner)
        )
        rows = write_parts(counted, job.out / split)
        metrics[split] = {"rows": rows, "tokens": counted.tokens}
    if metrics["train"]["rows"] == 0:
        raise DataError("no row of the train split could be encoded", file=str(dataset / "train"))
    (job.out / "budget.json").write_text(
        json.dumps({"max_tokens": budget.max_tokens, "padding_side": budget.padding_side}), encoding="utf-8"
    )
    return metrics


def _blocks(folder: Path, learner: Any) -> Iterator[pa.Table]:
    """Yields the rows of a split, at once for a learner that compares them with each other."""
    if not getattr(learner, "whole_split", False):
        yield from iter_parts(folder)
    elif (rows := read_parts(folder)).num_rows:
        yield rows


def texts(dataset: Path, task: Any) -> Iterator[str]:
    """Yields the texts of the train split: a writing task's own, else its columns of text or tokens."""
    if task.head_kind == "causal-lm":
        for rows in iter_parts(dataset / "train"):
            yield from task.texts(rows)
        return
    columns = task.columns()
    names = [name for name, kind in (columns.required | columns.optional).items() if kind in ("text", "tokens")]
    for rows in iter_parts(dataset / "train"):
        for name in names:
            if name not in rows.column_names:
                continue
            if pa.types.is_list(rows.column(name).type):
                yield from (" ".join(map(str, words)) for words in rows.column(name).to_pylist() if words)
            else:
                yield from (value for value in rows.column(name).cast(pa.string()).to_pylist() if value)


def settled(folder: Path, task: Any) -> Tokenizer:
    """Opens a tokenizer, and writes into its folder what training needs and the base left open.

    A writing task's chat template, where there is none. Where there is one, the token that it puts after an answer
    becomes the end token: it is what the model learns to end with, and many bases name another. The end token pads,
    where nothing else does. So the model carries what it learned. DataError where there is no token for these.
    """
    from transformers import AutoTokenizer

    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(folder)
    before = (tokenizer.chat_template, tokenizer.eos_token, tokenizer.pad_token)
    template = task.chat_template if task.head_kind == "causal-lm" else None
    if template and not tokenizer.chat_template:
        tokenizer.chat_template = template
    elif template:
        tokenizer.eos_token = _end_of_answer(tokenizer)
    if tokenizer.pad_token is None:
        if before[1] is None:
            raise DataError(
                "the tokenizer has no padding token, and no end token that could pad",
                field="pad_token",
                remedy="name one in the base's tokenizer_config.json",
            )
        tokenizer.pad_token = before[1]
    if (tokenizer.chat_template, tokenizer.eos_token, tokenizer.pad_token) != before:
        tokenizer.save_pretrained(folder)
    return tokenizer


def _end_of_answer(tokenizer: Tokenizer) -> str:
    """Returns the special token with which the tokenizer's chat template ends an answer."""
    question = {"role": "user", "content": "question"}
    chat = [question, {"role": "assistant", "content": "answer"}]
    text = str(tokenizer.apply_chat_template(chat, tokenize=False))
    special = {*tokenizer.all_special_tokens}
    special |= {one.content for one in tokenizer.added_tokens_decoder.values() if one.special}
    end = next((token for token in tokenizer.tokenize(text.rpartition("answer")[2]) if token in special), None)
    if end is None:
        raise DataError(
            "the tokenizer's chat template ends an answer without a special token: a model could not learn to stop",
            code="no_end_token",
            field="chat_template",
            remedy="put {{ eos_token }} after each answer in the base's template",
        )
    return end


def read_state(dataset: Path) -> dict[str, Any]:
    """Reads what was learned from the train split."""
    state: dict[str, Any] = json.loads((dataset / "state.json").read_text(encoding="utf-8"))
    return state


class _Counted:
    """Counts tokens while tables pass."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables, self.tokens = tables, 0

    def __iter__(self) -> Iterator[pa.Table]:
        for table in self._tables:
            ids = table.column("input_ids")
            self.tokens += sum(chunk.flatten().__len__() for chunk in ids.chunks)
            yield table
