"""A question with its context in windows that fit the model, and where in them an answer lies.

Knows nothing about tables; characters are counted in the context as it was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase as Tokenizer

OUTSIDE = -1  # the offset of a token that is not of the context


@dataclass(frozen=True, slots=True)
class Window:
    """The tokens of a question and of one piece of its context."""

    inputs: dict[str, list[int]]  # input_ids, attention_mask, and token_type_ids where the tokenizer has them
    offsets: list[tuple[int, int]]  # characters of the context without white space around, or OUTSIDE twice


def windows(question: str, context: str, *, tokenizer: Tokenizer, max_tokens: int, stride: int) -> Iterator[Window]:
    """Yields windows that overlap by `stride` tokens, or by half of a window where that is less.

    A question that would fill more than half of a window is cut: its end is lost before the context's.
    """
    call: Any = tokenizer
    special = tokenizer.num_special_tokens_to_add(pair=True)
    half = max(1, (max_tokens - special) // 2)
    asked = call(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    if len(asked) > half:
        question = question[: asked[half - 1][1]]
    room = max_tokens - special - min(len(asked), half)
    typed = "token_type_ids" in tokenizer.model_input_names
    names = ("input_ids", "attention_mask", "token_type_ids")[: 2 + typed]
    found = call(
        question,
        context,
        truncation="only_second",
        max_length=max_tokens,
        stride=min(stride, room // 2),
        padding=False,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=typed,
    )
    for place, offsets in enumerate(found["offset_mapping"]):
        inside = found.sequence_ids(place)
        yield Window(
            inputs={name: found[name][place] for name in names},
            offsets=[
                _bare(context, start, end) if sequence == 1 else (OUTSIDE, OUTSIDE)
                for sequence, (start, end) in zip(inside, offsets, strict=True)
            ],
        )


def place_of(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    """Returns the first and the last token of an answer, or None where the window does not hold all of it."""
    held = [place for place, (first, last) in enumerate(offsets) if first != OUTSIDE and first < end and last > start]
    if not held or offsets[held[0]][0] > start or offsets[held[-1]][1] < end:
        return None
    return held[0], held[-1]


def best_span(logits: np.ndarray, inside: np.ndarray, *, longest: int) -> tuple[float, int, int] | None:
    """Returns score, first and last token of the best answer of at most `longest` tokens; None without a context.

    `logits` (tokens, 2) are those of beginning and end, `inside` (tokens,) tells the context's. Of equals the shortest.
    """
    import numpy as np

    places = np.flatnonzero(inside)
    best: tuple[float, int, int] | None = None
    begin, end = logits[places, 0], logits[places, 1]
    for more in range(min(longest, len(places))):
        sums = begin[: len(places) - more] + end[more:]
        at = int(sums.argmax())
        if best is None or sums[at] > best[0]:
            best = float(sums[at]), int(places[at]), int(places[at + more])
    return best


def _bare(context: str, start: int, end: int) -> tuple[int, int]:
    """Returns a token's characters without white space around them: some tokenizers count the space before a word."""
    text = context[start:end].rstrip()
    inner = text.lstrip()
    return (start + len(text) - len(inner), start + len(text)) if inner else (OUTSIDE, OUTSIDE)
