"""Opening a finished model, so that evaluation, `predict` and serving answer by the same code.

Knows no engine, task or PEFT method by name.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from espalier_sdk.artifacts import ArtifactRef, PluginNeed
from espalier_sdk.choice import Choice
from espalier_sdk.columns import (
    ENCODED_ROW,
    LABELS,
    LOGITS,
    NLL,
    OTHER_RATING,
    QUESTION,
    RATING,
    SCORED_TOKENS,
    TOP_TEXTS,
    TOP_TOKENS,
    WRITTEN,
)
from espalier_sdk.errors import DataError
from espalier_sdk.model import READ, Adapter, Budget, Head, Placement

from espalier_runtime.card import CARD as CARD
from espalier_runtime.card import quantised_as
from espalier_runtime.card import read_card as read_card
from espalier_runtime.merging import whole_folder
from espalier_runtime.plugins import Plugins
from espalier_runtime.store import Store

DEFAULT_ENGINE = Choice(name="transformers")
_ADAPTER = "own"


@dataclass(frozen=True)
class OpenedModel:
    """A model that answers tables of raw rows: serving transforms, encoding, forward pass and decoding."""

    ref: ArtifactRef
    head: Head
    task: Any
    state: Any
    tokenizer: Any
    budget: Budget
    transforms: tuple[tuple[str, Any, Any], ...]  # name, plugin, fitted state or None
    engine: Any
    adapter: str | None

    def transform(self, rows: pa.Table) -> pa.Table:
        """Applies the transforms that act at serving; DataError where one would drop a row.

        An answer that a transform fills in where the rows have none is left out: nobody gave it.
        """
        given = rows.column_names
        for name, plugin, state in self.transforms:
            count = rows.num_rows
            rows = plugin.apply(rows) if state is None else plugin.apply(rows, state=state)
            if rows.num_rows != count:
                raise DataError(
                    f"{name} drops {count - rows.num_rows} of {count} rows: a required value is missing or empty",
                    code="row_dropped",
                    remedy="send a value for each column that the task needs",
                )
        made = [name for name in rows.column_names if name not in given]
        uses = self.task.columns().required if made else {}
        return rows.drop_columns([name for name in made if uses.get(name, READ[0]) not in READ])

    async def predict_async(self, rows: pa.Table, *, transformed: bool = False) -> pa.Table:
        """Returns one prediction per row, in order; the columns are the task's."""
        rows = rows if transformed else self.transform(rows)
        encoded = self.task.encode(rows, state=self.state, tokenizer=self.tokenizer, budget=self.budget)
        if self.task.head_kind == "causal-lm":
            outputs = await (self._write if self.head.kind == "causal-lm" else self._judge)(rows, encoded)
        else:
            outputs = await self.engine.forward(encoded, adapter=self.adapter)
        if TOP_TOKENS in outputs.column_names and LABELS not in encoded.column_names:
            outputs = outputs.append_column(TOP_TEXTS, self._texts(outputs.column(TOP_TOKENS)))
        decoded: pa.Table = self.task.decode(outputs, encoded, state=self.state)
        return decoded

    async def _write(self, rows: pa.Table, encoded: pa.Table) -> pa.Table:
        """Returns what the engine writes where the rows ask something, and how likely the texts are that they give."""
        columns: dict[str, Any] = {ENCODED_ROW: encoded.column(ENCODED_ROW)}
        if LABELS in encoded.column_names:
            scores = await self.engine.forward(encoded, adapter=self.adapter)
            columns |= {name: scores.column(name) for name in scores.column_names}
            columns |= await self._ratings(rows, scores)
        asked = self.task.questions(rows, tokenizer=self.tokenizer, budget=self.budget)
        if asked is not None:
            columns[QUESTION] = asked.column(QUESTION)
            columns[WRITTEN] = pa.array(await self._generate(asked), pa.string())
        return pa.table(columns)

    async def _judge(self, rows: pa.Table, encoded: pa.Table) -> pa.Table:
        """Returns what a model that writes nothing says of the answers that the rows hold."""
        if LABELS not in encoded.column_names:
            raise DataError(
                "the model says how good an answer is, and the rows hold none",
                code="no_answers",
                field="task",
                accepted=", ".join(self.task.columns().required),
            )
        outputs = await self.engine.forward(encoded, adapter=self.adapter)
        return pa.table({ENCODED_ROW: encoded.column(ENCODED_ROW), **await self._ratings(rows, outputs)})

    async def _ratings(self, rows: pa.Table, outputs: pa.Table) -> dict[str, pa.Array]:
        """Returns how good the answer of each row is to the model, and its other answer; nothing where it has none."""
        others = self.task.others(rows) if hasattr(self.task, "others") else None
        found = {} if others is None and self.head.kind == "causal-lm" else {RATING: _rated(outputs)}
        if others is not None:
            encoded = self.task.encode(others, state=self.state, tokenizer=self.tokenizer, budget=self.budget)
            found[OTHER_RATING] = _rated(await self.engine.forward(encoded, adapter=self.adapter))
        return found

    async def _generate(self, asked: pa.Table) -> list[str]:
        settings = self.task.settings(tokenizer=self.tokenizer, budget=self.budget)
        tokens: list[list[int]] = [[] for _ in range(asked.num_rows)]
        async for part in self.engine.generate(asked, adapter=self.adapter, settings=settings):
            for row in part.to_pylist():
                tokens[row["place"]] += row["tokens"]
        texts: list[str] = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _texts(self, tokens: pa.ChunkedArray) -> pa.Array:
        """Returns single tokens as the tokenizer writes them, without the spaces around them."""
        rows = [[[self.tokenizer.decode([one]).strip() for one in top] for top in row] for row in tokens.to_pylist()]
        return pa.array(rows, pa.list_(pa.list_(pa.string())))

    def predict(self, rows: pa.Table, *, transformed: bool = False) -> pa.Table:
        """Does the same where no event loop runs."""
        return asyncio.run(self.predict_async(rows, transformed=transformed))


def _rated(outputs: pa.Table) -> pa.Array:
    """Returns one number per answer: a reward, or the mean log-likelihood of its tokens, so that length tells nothing.

    The latter ranks answers as Meng et al. 2024 do.
    """
    import numpy as np

    if LOGITS in outputs.column_names:
        return pa.array([float(row[0]) for row in outputs.column(LOGITS).to_pylist()], pa.float64())
    counts = np.maximum(outputs.column(SCORED_TOKENS).to_numpy(), 1)
    return pa.array(-outputs.column(NLL).to_numpy() / counts, pa.float64())


def open_model(
    store: Store,
    ref: ArtifactRef,
    plugins: Plugins,
    engine: Choice = DEFAULT_ENGINE,
    placement: Placement | None = None,
) -> OpenedModel:
    """Opens a model artifact (and its base, where it is an adapter) with an engine.

    Raises DataError where a file is missing or damaged, PluginError where a plugin that it requires is not here.
    """
    from transformers import AutoTokenizer

    opened = store.open_artifact(ref)
    card = read_card(opened.folder)
    _require(opened.manifest.requires, plugins)
    task_class = plugins.load_class("espalier.tasks", card["task"]["name"])
    head = Head(**card["head"])
    method = plugins.load("espalier.peft_methods", Choice(**card["peft"])) if card["peft"] else None
    runner = plugins.load("espalier.engines", engine)
    adapters = {_ADAPTER: Adapter(opened.folder, method)} if method is not None else {}
    with tempfile.TemporaryDirectory(prefix="espalier-merged-") as scratch:  # for a base that is an adapter itself
        base = opened.folder
        if adapters:
            base = whole_folder(store, ArtifactRef.parse(card["base"]), plugins, scratch=Path(scratch))
        placed = replace(placement or Placement(), quantise=quantised_as(card))
        runner.open(base, head=head, adapters=adapters, placement=placed)
    return OpenedModel(
        ref=ref,
        head=head,
        task=plugins.load("espalier.tasks", Choice(**card["task"])),
        state=task_class.State.model_validate(card["state"]),
        tokenizer=AutoTokenizer.from_pretrained(opened.folder),
        budget=Budget(**card["budget"]),
        transforms=tuple(serving_transforms(card["transforms"], plugins)),
        engine=runner,
        adapter=_ADAPTER if method is not None else None,
    )


def serving_transforms(records: Sequence[dict[str, Any]], plugins: Plugins) -> list[tuple[str, Any, Any]]:
    """Returns name, plugin and state of each transform that a model carries for serving."""
    found = []
    for record in records:
        plugin_class = plugins.load_class("espalier.transforms", record["name"])
        plugin = plugins.load("espalier.transforms", Choice(name=record["name"], config=record["config"]))
        fitted = plugin_class.kind == "fitted"
        found.append((record["name"], plugin, plugin_class.State.model_validate(record["state"]) if fitted else None))
    return found


def _require(needs: Sequence[PluginNeed], plugins: Plugins) -> None:
    for need in needs:
        plugins.find(need.group, need.name)
