"""Text columns of a question: read, joined, tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from espalier_sdk.columns import ENCODED_ROW
from espalier_sdk.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from espalier_sdk.model import Budget
    from transformers import PreTrainedTokenizerBase as Tokenizer


def column_of(rows: pa.Table, name: str) -> pa.ChunkedArray:
    """Returns a column; DataError with what is there where it is not."""
    if name not in rows.column_names:
        raise DataError(f"there is no column {name!r}", field=name, accepted=", ".join(rows.column_names))
    return rows.column(name)


def as_text(rows: pa.Table, name: str) -> pa.ChunkedArray:
    """Returns a column as text; DataError where it is not there, or holds lists."""
    import pyarrow as pa

    column = column_of(rows, name)
    if column.type == pa.string():
        return column
    try:
        return column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise DataError(
            f"column {name!r} holds {column.type}, which is no text", field=name, accepted="text, numbers or booleans"
        ) from error


def joined_texts(rows: pa.Table, names: Sequence[str]) -> list[str]:
    """Returns one text per row: the columns that are not empty, line by line."""
    parts = [as_text(rows, name).to_pylist() for name in names]
    if len(parts) == 1:
        return [text or "" for text in parts[0]]
    return ["\n".join(text for text in row if text) for row in zip(*parts, strict=True)]


def tokenised(texts: list[str], *, tokenizer: Tokenizer, budget: Budget) -> dict[str, pa.Array | pa.ChunkedArray]:
    """Returns `row`, `input_ids` and `attention_mask`, cut to the budget and not padded."""
    import pyarrow as pa

    tokens = (
        tokenizer(texts, truncation=True, max_length=budget.max_tokens, padding=False, return_token_type_ids=False)
        if texts
        else {"input_ids": [], "attention_mask": []}
    )
    return {
        ENCODED_ROW: pa.array(range(len(texts)), pa.int64()),
        "input_ids": pa.array(tokens["input_ids"], pa.list_(pa.int32())),
        "attention_mask": pa.array(tokens["attention_mask"], pa.list_(pa.int8())),
    }
