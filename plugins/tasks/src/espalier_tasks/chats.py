"""Chats: messages read and checked, put into a template's words, and cut into what is asked and what is answered.

Knows no column and no token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from espalier_sdk.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

ROLES = ("system", "user", "assistant")
ANSWERS = "assistant"

# For a tokenizer that has none: each turn begins with its role, an answer ends with the tokenizer's own end token.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)

Message = dict[str, str]
Piece = tuple[str, bool]  # text, and whether it is an answer


def read_chat(value: Any) -> list[Message]:
    """Returns messages from a list of `{role, content}` or its JSON text; ValueError says what is wrong with it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"is no JSON list of messages: {error.msg} at character {error.pos}") from error
    if not isinstance(value, list) or not value:
        raise ValueError("holds no message")
    messages = [_message(place, one) for place, one in enumerate(value)]
    if messages[0]["role"] == ANSWERS:
        raise ValueError("begins with an answer: a system or user message must come first")
    return messages


def is_answered(messages: Sequence[Message]) -> bool:
    """Tells whether a chat ends with an answer."""
    return messages[-1]["role"] == ANSWERS


def pieces(messages: Sequence[Message], tokenizer: Tokenizer) -> list[Piece]:
    """Returns the chat's text cut at the borders of its answers; one that ends with a question waits for an answer.

    Raises DataError where the template changes earlier turns when a later one is there: then nothing could be cut.
    """
    found: list[Piece] = []
    done = ""
    for before, after in _borders(messages, tokenizer):
        if not before.startswith(done) or (after is not None and not after.startswith(before)):
            raise DataError(
                "the tokenizer's chat template changes a turn when later ones follow, so answers cannot be told apart",
                code="chat_template",
                field="chat_template",
                remedy="give the base a template that only appends",
            )
        found.append((before[len(done) :], False))
        if after is not None:
            found.append((after[len(before) :], True))
            done = after
    return found


def _borders(messages: Sequence[Message], tokenizer: Tokenizer) -> Iterator[tuple[str, str | None]]:
    """Yields the chat's text before each answer and after it; None for an answer that is still to come."""
    for place, message in enumerate(messages):
        if message["role"] == ANSWERS:
            yield _text(messages[:place], tokenizer, ask=True), _text(messages[: place + 1], tokenizer, ask=False)
    if not is_answered(messages):
        yield _text(messages, tokenizer, ask=True), None


def _text(messages: Sequence[Message], tokenizer: Tokenizer, *, ask: bool) -> str:
    template = None if tokenizer.chat_template else TEMPLATE
    text: str = tokenizer.apply_chat_template(
        list(messages), chat_template=template, tokenize=False, add_generation_prompt=ask
    )
    return text


def _message(place: int, value: Any) -> Message:
    role, content = (value.get("role"), value.get("content")) if isinstance(value, dict) else (None, None)
    if role not in ROLES:
        raise ValueError(f"message {place}: role is {role!r}, must be {', '.join(ROLES)}")
    if not isinstance(content, str) or not content.strip():
        raise ValueError(f"message {place}: content is {content!r}, must be text")
    return {"role": role, "content": content}
