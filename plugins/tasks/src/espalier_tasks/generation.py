"""The task `generation`: plain texts, instructions with their answers, or chats; answered by writing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from espalier_sdk.choice import PluginConfig, State
from espalier_sdk.columns import (
    ENCODED_ROW,
    LINE,
    NLL,
    ORIGIN,
    OTHER_RATING,
    PREDICTION,
    QUESTION,
    RATING,
    SCORED_BYTES,
    SCORED_TOKENS,
    TARGET,
    WRITTEN,
)
from espalier_sdk.errors import DataError
from espalier_sdk.model import Columns, Head, HeadKind
from pydantic import BaseModel, Field, JsonValue, model_validator

from espalier_tasks.chats import ANSWERS, TEMPLATE, Message, is_answered, read_chat
from espalier_tasks.replies import Reply, chat_request, prompt_request
from espalier_tasks.sequences import QUESTION_SHARE, answered_chats, as_table, asked_chats, text_windows

if TYPE_CHECKING:
    import pyarrow as pa
    from espalier_sdk.model import Budget
    from transformers import PreTrainedTokenizerBase as Tokenizer


class GenerationConfig(PluginConfig):
    """Which columns are read (`text`, or `prompt` and `completion`, or `messages`, which may have a `completion`), and
    how much is written.
    """

    text: str | None = Field(default=None, description="The column of plain texts, to learn a language from.")
    prompt: str | None = Field(
        default=None, description="The column of questions; beside `text`, of beginnings to write on from (`prompt`)."
    )
    completion: str | None = Field(
        default=None, description="The column of the answers to `prompt`, or to `messages` that end with a question."
    )
    messages: str | None = Field(
        default=None, description="The column of chats: lists of {role, content}, or the JSON of such a list."
    )
    rejected: str | None = Field(
        default=None, description="The column of answers, or chats, that were liked less: for preference-accuracy."
    )
    system: str | None = Field(default=None, description="What the model is told before each `prompt`.")
    max_new_tokens: int = Field(
        default=64, ge=1, le=8192, description="Longest answer in tokens; three quarters of max_tokens at most."
    )

    @model_validator(mode="after")
    def _one_format(self) -> Self:
        instructions = self.prompt is not None and self.completion is not None
        if [self.text is not None, instructions, self.messages is not None].count(True) != 1:
            raise ValueError("name the columns of one format: `text`, or `prompt` and `completion`, or `messages`")
        if self.completion is not None and not instructions and self.messages is None:
            raise ValueError("`completion` needs `prompt`, the column of the questions, or `messages`")
        if self.messages is not None and self.prompt is not None:
            raise ValueError("`messages` hold the questions already: remove `prompt`")
        if self.system is not None and not instructions:
            raise ValueError("`system` goes with `prompt` and `completion`: chats have system messages of their own")
        if self.rejected is not None and self.text is not None:
            raise ValueError("`rejected` needs answers that were liked better: `text` has none")
        if self.rejected is not None and self.rejected in (self.prompt, self.completion, self.messages):
            raise ValueError(f"column {self.rejected!r} cannot be the better and the other answer at once")
        if self.prompt is not None and self.prompt in (self.text, self.completion):
            raise ValueError(f"column {self.prompt!r} cannot be question and answer at once")
        if self.messages is not None and self.messages == self.completion:
            raise ValueError(f"column {self.messages!r} cannot be chat and answer at once")
        return self


class GenerationState(State):
    """Nothing is learned from the train split but its size."""

    rows: int = Field(default=0, description="Rows of the train split.")


class Generation:
    """Texts are written: the continuation of a text, the answer to an instruction, the next turn of a chat."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[GenerationConfig]] = GenerationConfig
    State: ClassVar[type[GenerationState]] = GenerationState
    head_kind: ClassVar[HeadKind] = "causal-lm"

    def __init__(self, config: GenerationConfig) -> None:
        self.config = config

    @property
    def chat_template(self) -> str | None:
        """Returns the template for a tokenizer that has none; None for plain texts."""
        return TEMPLATE if self.config.text is None else None

    def columns(self) -> Columns:
        """Returns the columns of the format."""
        config = self.config
        if config.text is not None:
            return Columns(required={config.text: "text"})
        asked = {str(config.prompt): "text"} if config.messages is None else {config.messages: "messages"}
        answers = [name for name in (config.completion, config.rejected) if name is not None]
        kind = "messages" if config.completion is None else "answer"
        return Columns(required={**asked, **dict.fromkeys(answers, kind)})

    def observe(self, rows: pa.Table) -> GenerationState:
        """Counts rows; raises DataError for a chat that cannot be read, or that has no answer to learn from."""
        if self.config.messages is not None:
            for place, chat in enumerate(self._chats(self._unanswered(rows))):
                if self.config.completion is None and not is_answered(chat):
                    raise self._no_answer(rows, place)
        return GenerationState(rows=rows.num_rows)

    def combine(self, left: GenerationState, right: GenerationState) -> GenerationState:
        """Adds two counts."""
        return GenerationState(rows=left.rows + right.rows)

    def finish(self, seen: GenerationState) -> GenerationState:
        """Returns the count."""
        return seen

    def head(self, state: GenerationState) -> Head:
        """Returns a language model's head."""
        return Head(kind=self.head_kind)

    def texts(self, rows: pa.Table) -> Iterator[str]:
        """Yields every text of the rows: an own tokenizer is trained on them."""
        config = self.config
        if config.messages is not None:
            yield from (message["content"] for chat in self._chats(self._unanswered(rows)) for message in chat)
        for name in (config.text, config.prompt, config.completion):
            if name is not None and name in rows.column_names:
                yield from (text for text in _column(rows, name) if text)

    def encode(self, rows: pa.Table, *, state: GenerationState, tokenizer: Tokenizer, budget: Budget) -> pa.Table:
        """Returns `row`, `input_ids`, `attention_mask`, and where texts or answers are given `labels`, `target`.

        Labels are -100 for what was asked: the loss is on answers. A long question loses its beginning, a long answer
        its end, and neither all of itself; a long text becomes several rows, each of which begins with the last token
        of the one before.
        """
        _require_end(tokenizer)
        if self.config.text is not None and self.config.text in rows.column_names:
            texts = [text or "" for text in _column(rows, self.config.text)]
            return as_table(text_windows(texts, tokenizer, budget), labelled=True)
        chats = self._chats(rows)
        answered = [is_answered(chat) for chat in chats]
        if any(answered):
            if not all(answered):
                raise self._no_answer(rows, answered.index(False))
            return as_table(answered_chats(chats, tokenizer, budget), labelled=True)
        return as_table(asked_chats(chats, self._plain, tokenizer, self._question_tokens(budget)), labelled=False)

    def questions(self, rows: pa.Table, *, tokenizer: Tokenizer, budget: Budget) -> pa.Table | None:
        """Returns what is asked, without answers that are given; None for plain texts, which ask nothing."""
        import pyarrow as pa

        if self.config.text is not None and self.config.text in rows.column_names:
            return None
        _require_end(tokenizer)
        chats = [chat[:-1] if is_answered(chat) else chat for chat in self._chats(self._unanswered(rows))]
        found = as_table(asked_chats(chats, self._plain, tokenizer, self._question_tokens(budget)), labelled=False)
        return found.append_column(QUESTION, pa.array([chat[-1]["content"] for chat in chats], pa.string()))

    def others(self, rows: pa.Table) -> pa.Table | None:
        """Returns the rows with the answer that was liked less in place of the other; None where they hold none."""
        config, answer = self.config, self.config.completion or self.config.messages
        if config.rejected is None or answer is None or not {config.rejected, answer} <= set(rows.column_names):
            return None
        for place, value in enumerate(rows.column(config.rejected).to_pylist()):
            if not value:
                raise _wrong(rows, place, "there is no answer", field=config.rejected)
        return rows.set_column(rows.column_names.index(answer), answer, rows.column(config.rejected))

    def settings(self, *, tokenizer: Tokenizer, budget: Budget) -> Mapping[str, JsonValue]:
        """Returns greedy decoding up to the tokenizer's end token: the same question has the same answer."""
        return {
            "max_new_tokens": budget.max_tokens - self._question_tokens(budget),
            "do_sample": False,
            "eos_token_id": tokenizer.eos_token_id,
        }

    def decode(self, outputs: pa.Table, encoded: pa.Table, *, state: GenerationState) -> pa.Table:
        """Returns `row`, `prediction` (what was written, or null), and where it was scored `nll`, `scored_tokens`,
        `scored_bytes` and `target`, and where answers were rated `rating` and `other_rating`; the parts of a long text
        are added up.
        """
        import pyarrow as pa

        places = encoded.column(ENCODED_ROW)
        sums = pa.table({ENCODED_ROW: places})
        added = []
        for source, names in ((outputs, (NLL, SCORED_TOKENS)), (encoded, (SCORED_BYTES,))):
            for name in names:
                if name in source.column_names:
                    sums = sums.append_column(name, source.column(name))
                    added.append(name)
        firsts = [name for name in (WRITTEN, QUESTION, RATING, OTHER_RATING) if name in outputs.column_names]
        for name in firsts:
            sums = sums.append_column(name, outputs.column(name))
        if TARGET in encoded.column_names:
            sums = sums.append_column(TARGET, encoded.column(TARGET))
            firsts.append(TARGET)
        asked = [*((name, "sum") for name in added), *((name, "first") for name in firsts)]
        found = sums.group_by(ENCODED_ROW, use_threads=False).aggregate(asked)
        found = found.rename_columns([_bare(name) for name in found.column_names])
        if WRITTEN in found.column_names:
            return found.rename_columns([PREDICTION if name == WRITTEN else name for name in found.column_names])
        return found.append_column(PREDICTION, pa.nulls(found.num_rows, pa.string()))

    def request(self, state: GenerationState) -> type[BaseModel]:
        """Returns the model of one question: a prompt, or a chat that ends with the user."""
        if self.config.messages is not None:
            return chat_request(self.config.messages)
        return prompt_request(self._prompt_column)

    def response(self, state: GenerationState) -> type[BaseModel]:
        """Returns the model of one answer, `{text, perplexity}`; it also reads a row that `decode` made."""
        return Reply

    @property
    def _prompt_column(self) -> str:
        return self.config.prompt or "prompt"

    @property
    def _plain(self) -> bool:
        return self.config.text is not None

    def _question_tokens(self, budget: Budget) -> int:
        return max(budget.max_tokens - self.config.max_new_tokens, budget.max_tokens // QUESTION_SHARE)

    def _unanswered(self, rows: pa.Table) -> pa.Table:
        """Returns the rows without the column of answers."""
        return rows.select([name for name in rows.column_names if name != self.config.completion])

    def _chats(self, rows: pa.Table) -> list[list[Message]]:
        """Returns each row as a chat, with its answer where the rows hold one; of instructions one of two turns."""
        config = self.config
        if config.messages is not None:
            values = _require(rows, config.messages).to_pylist()
            chats = [self._read(rows, place, value) for place, value in enumerate(values)]
        else:
            before = [{"role": "system", "content": config.system}] if config.system else []
            chats = [[*before, {"role": "user", "content": text or ""}] for text in _column(rows, self._prompt_column)]
        if config.completion is not None and config.completion in rows.column_names:
            for place, (chat, answer) in enumerate(zip(chats, _column(rows, config.completion), strict=True)):
                if answer is None:
                    raise _wrong(rows, place, "there is no answer", field=config.completion)
                chat.append({"role": ANSWERS, "content": answer})
        return chats

    def _read(self, rows: pa.Table, place: int, value: Any) -> list[Message]:
        field = str(self.config.messages)
        try:
            chat = read_chat(value)
        except ValueError as error:
            raise _wrong(rows, place, f"the chat {error}", field=field) from error
        if self.config.completion is not None and is_answered(chat):
            message = f"the chat ends with an answer, and column {self.config.completion!r} holds another"
            remedy = "leave `completion` out where chats hold their answers, or end each chat with a question"
            raise _wrong(rows, place, message, field=field, remedy=remedy)
        return chat

    def _no_answer(self, rows: pa.Table, place: int) -> DataError:
        return _wrong(
            rows,
            place,
            "the chat ends without an answer of the assistant, so there is nothing to learn from",
            field=str(self.config.messages),
            remedy="end each chat with a message of the role assistant, or drop the row with the transform filter, or"
            " name the column of answers as `completion` (a policy, which writes its own, does without that column)",
        )


def _bare(name: str) -> str:
    return name.removesuffix("_sum").removesuffix("_first")


def _column(rows: pa.Table, name: str) -> list[str | None]:
    import pyarrow as pa

    column = _require(rows, name)
    try:
        found: list[str | None] = column.cast(pa.string()).to_pylist()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise DataError(f"column {name!r} holds {column.type}, which is no text", field=name) from error
    return found


def _require(rows: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in rows.column_names:
        raise DataError(f"there is no column {name!r}", field=name, accepted=", ".join(rows.column_names))
    return rows.column(name)


def _require_end(tokenizer: Tokenizer) -> None:
    if tokenizer.eos_token_id is None:
        raise DataError(
            "the tokenizer has no end token: a model could not learn where an answer ends",
            code="no_end_token",
            field="eos_token",
            remedy="choose a base whose tokenizer has one, or a decoder family of the strategy from-scratch",
        )


def _wrong(rows: pa.Table, place: int, message: str, *, field: str, remedy: str | None = None) -> DataError:
    """Returns the error for one row, with the file and line that it came from where the table still has them."""
    where: dict[str, Any] = {}
    if ORIGIN in rows.column_names and LINE in rows.column_names:
        where = {"file": rows.column(ORIGIN)[place].as_py(), "line": rows.column(LINE)[place].as_py()}
    at = "" if where else f"row {place}: "
    return DataError(f"{at}{message}", code="chat", field=field, remedy=remedy, **where)
