"""Tasks that write, small enough to know every token."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
from espalier_sdk import Budget, Columns, Head, HeadKind, PluginConfig, State


class Nothing(State):
    """Nothing is learned."""


class Asked:
    """Questions and answers, with the loss on answers; what is too long loses its end."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[PluginConfig]] = PluginConfig
    State: ClassVar[type[Nothing]] = Nothing
    head_kind: ClassVar[HeadKind] = "causal-lm"

    def columns(self) -> Columns:
        return Columns(required={"prompt": "text", "chosen": "answer"})

    def observe(self, rows: pa.Table) -> Nothing:
        return Nothing()

    def finish(self, seen: Nothing) -> Nothing:
        return seen

    def head(self, state: Nothing) -> Head:
        return Head("causal-lm")

    def encode(self, rows: pa.Table, *, state: Any, tokenizer: Any, budget: Budget) -> pa.Table:
        asked, said = (
            tokenizer(rows.column(name).to_pylist(), add_special_tokens=False)["input_ids"]
            for name in ("prompt", "chosen")
        )
        ids = [(left + right)[: budget.max_tokens] for left, right in zip(asked, said, strict=True)]
        labels = [[-100] * len(left) + one[len(left) :] for left, one in zip(asked, ids, strict=True)]
        return pa.table(
            {
                "row": pa.array(range(len(ids)), pa.int64()),
                "input_ids": pa.array(ids, pa.list_(pa.int32())),
                "labels": pa.array(labels, pa.list_(pa.int64())),
            }
        )

    def questions(self, rows: pa.Table, *, tokenizer: Any, budget: Budget) -> pa.Table | None:
        ids = tokenizer(rows.column("prompt").to_pylist(), add_special_tokens=False)["input_ids"]
        return pa.table(
            {"row": pa.array(range(len(ids)), pa.int64()), "input_ids": pa.array(ids, pa.list_(pa.int32()))}
        )

    def settings(self, *, tokenizer: Any, budget: Budget) -> dict[str, Any]:
        return {"max_new_tokens": 4}


class Texts(Asked):
    """Plain texts."""

    def questions(self, rows: pa.Table, *, tokenizer: Any, budget: Budget) -> pa.Table | None:
        return None

    def columns(self) -> Columns:
        return Columns(required={"text": "text"})
