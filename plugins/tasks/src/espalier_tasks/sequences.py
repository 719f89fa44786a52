"""What a decoder reads: texts, chats and questions as rows of tokens, of which some are learned.

Knows no columns of a dataset; what is longer than the budget is cut here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from espalier_sdk.columns import ENCODED_ROW, LABELS, SCORED_BYTES, TARGET

from espalier_tasks.chats import ANSWERS, Message, pieces

if TYPE_CHECKING:
    import pyarrow as pa
    from espalier_sdk.model import Budget
    from transformers import PreTrainedTokenizerBase as Tokenizer

IGNORED_LABEL = -100  # what torch's cross entropy leaves out
QUESTION_SHARE = 4  # a long answer leaves the question a quarter of the budget


@dataclass(frozen=True, slots=True)
class Example:
    """Tokens of one encoded row; `learned` says of each whether it is a label."""

    row: int
    ids: list[int]
    learned: list[bool]
    target: str | None
    scored_bytes: int


def text_windows(texts: Sequence[str], tokenizer: Tokenizer, budget: Budget) -> Iterator[Example]:
    """Yields each text between begin and end token; one longer than the budget as several rows."""
    for row, (text, inner) in enumerate(zip(texts, _tokens(texts, tokenizer), strict=True)):
        begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        ids = [*begin, *inner, tokenizer.eos_token_id]
        # Each part repeats one token, so that every token but the first is predicted exactly once.
        for start in range(0, max(1, len(ids) - 1), budget.max_tokens - 1):
            part = ids[start : start + budget.max_tokens]
            first = start == 0
            size = len(text.encode("utf-8", errors="replace")) if first else 0
            if first and inner and not begin:  # nothing predicts the first token, so its bytes are not scored
                size -= min(size, _first_bytes(text, inner[0], tokenizer))
            yield Example(row, part, [False] + [True] * (len(part) - 1), text if first else None, size)


def _first_bytes(text: str, token: int, tokenizer: Tokenizer) -> int:
    """Returns how many bytes of a text are its first token's, which may end within a character."""
    written: Any = tokenizer.decode([token])
    if "\ufffd" in written:  # bytes that are no character yet, in SentencePiece's spelling of one or in GPT-2's
        piece: Any = tokenizer.convert_ids_to_tokens(token)
        return 1 if piece.startswith("<0x") else len(piece)
    found: str = written if text.startswith(written) else written.lstrip()  # some put a space before a text
    return len(found.encode())


def answered_chats(chats: Sequence[list[Message]], tokenizer: Tokenizer, budget: Budget) -> Iterator[Example]:
    """Yields each chat, of which the assistant's messages are learned; what is too long loses its beginning and end."""
    cut = [pieces(chat, tokenizer) for chat in chats]
    tokens = iter(_tokens([text for one in cut for text, _ in one], tokenizer))
    for row, (chat, parts) in enumerate(zip(chats, cut, strict=True)):
        encoded = [(next(tokens), learned) for _, learned in parts]
        *earlier, (answer, _) = encoded
        before = [(token, learned) for ids, learned in earlier for token in ids]
        kept = answer[: budget.max_tokens - min(len(before), budget.max_tokens // QUESTION_SHARE)]
        tail = _last(before, budget.max_tokens - len(kept), tokenizer.bos_token_id)
        ids = [*(token for token, _ in tail), *kept]
        learned = [*(said for _, said in tail), *(True for _ in kept)]
        answers = [message["content"] for message in chat if message["role"] == ANSWERS]
        if len(kept) == len(answer) and len(tail) == len(before):
            size = sum(len(text.encode("utf-8", errors="replace")) for text in answers)
        else:
            size = len(_written([token for token, said in zip(ids, learned, strict=True) if said], tokenizer).encode())
        yield Example(row, ids, learned, answers[-1], size)


def asked_chats(chats: Sequence[list[Message]], plain: bool, tokenizer: Tokenizer, limit: int) -> Iterator[Example]:
    """Yields what to write on from: the bare text, or the chat up to where its answer begins."""
    begin = tokenizer.bos_token or ""
    cut = [[begin + chat[-1]["content"]] if plain else [text for text, _ in pieces(chat, tokenizer)] for chat in chats]
    tokens = iter(_tokens([text for one in cut for text in one], tokenizer))
    for row, parts in enumerate(cut):
        ids = [(token, False) for _ in parts for token in next(tokens)]
        kept = _last(ids, limit, tokenizer.bos_token_id)
        yield Example(row, [token for token, _ in kept], [False for _ in kept], None, 0)


def _last(tokens: list[tuple[int, bool]], count: int, begin: int | None) -> list[tuple[int, bool]]:
    """Returns the last tokens, and the begin token before them where it was there."""
    if len(tokens) <= count:
        return tokens
    if count > 1 and tokens[0][0] == begin:
        return [tokens[0], *tokens[-(count - 1) :]]
    return tokens[-count:]


def _tokens(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    if not texts:
        return []
    found: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return found


def _written(ids: list[int], tokenizer: Tokenizer) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text


def as_table(examples: Iterator[Example], *, labelled: bool) -> pa.Table:
    """Returns encoded rows as tasks do: tokens, and where they are `labelled` what is learned and scored."""
    import pyarrow as pa

    found = list(examples)
    columns: dict[str, pa.Array] = {
        ENCODED_ROW: pa.array([one.row for one in found], pa.int64()),
        "input_ids": pa.array([one.ids for one in found], pa.list_(pa.int32())),
        "attention_mask": pa.array([[1] * len(one.ids) for one in found], pa.list_(pa.int8())),
    }
    if labelled:
        labels = [
            [token if said else IGNORED_LABEL for token, said in zip(one.ids, one.learned, strict=True)]
            for one in found
        ]
        columns[LABELS] = pa.array(labels, pa.list_(pa.int64()))
        columns[TARGET] = pa.array([one.target for one in found], pa.string())
        columns[SCORED_BYTES] = pa.array([one.scored_bytes for one in found], pa.int64())
    return pa.table(columns)
