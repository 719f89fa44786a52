"""The task `question-answering`: the answer to a question as a piece of its context, or none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from espalier_sdk.choice import PluginConfig, State
from espalier_sdk.columns import (
    ENCODED_ROW,
    ENDS,
    LINE,
    ORIGIN,
    PREDICTION,
    RESERVED_PREFIX,
    SCORE,
    STARTS,
    TARGET,
)
from espalier_sdk.errors import DataError
from espalier_sdk.model import Columns, Head, HeadKind
from pydantic import BaseModel, ConfigDict, Field, StrictStr, create_model, model_validator

from espalier_tasks.token_logits import rows_of_logits
from espalier_tasks.windows import OUTSIDE, Window, best_span, place_of, windows

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from espalier_sdk.model import Budget
    from transformers import PreTrainedTokenizerBase as Tokenizer

_OFFSETS = f"{RESERVED_PREFIX}offsets"  # list<int32>: those of `Window`, flat
_CONTEXT = f"{RESERVED_PREFIX}context"  # str

Answer = tuple[str, int]  # its text, and the character at which it begins


class QuestionAnsweringConfig(PluginConfig):
    """Which columns are read, and how answers are searched."""

    question: str = Field(default="question", description="The column of questions.")
    context: str = Field(default="context", description="The column of texts that hold the answers.")
    answers: str = Field(
        default="answers",
        description="The column of answers: a list of {text, start}, or as in SQuAD {text: [], answer_start: []}; "
        "empty: the context holds none.",
    )
    stride: int = Field(default=64, ge=0, description="Tokens that neighbouring windows of a long context share.")
    max_answer_tokens: int = Field(default=30, ge=1, description="Longest answer in tokens.")
    null_threshold: float = Field(
        default=0.0,
        description="How far the score of no answer must be above the best one's; only where train has such rows.",
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if len({self.question, self.context, self.answers}) < 3:
            raise ValueError("question, context and answers must be three columns")
        return self


class AnswersState(State):
    """How many questions of the train split have an answer, and how many have none."""

    answered: int = Field(default=0, ge=0, description="Rows with an answer.")
    unanswerable: int = Field(default=0, ge=0, description="Rows whose context holds no answer.")


class QuestionAnswering:
    """Reads a long context in windows and gives the best piece of any."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[QuestionAnsweringConfig]] = QuestionAnsweringConfig
    State: ClassVar[type[AnswersState]] = AnswersState
    head_kind: ClassVar[HeadKind] = "question-answering"

    def __init__(self, config: QuestionAnsweringConfig) -> None:
        self.config = config

    def columns(self) -> Columns:
        """Returns the columns of questions, contexts and answers."""
        config = self.config
        return Columns(required={config.question: "text", config.context: "text", config.answers: "answers"})

    def targets(self, rows: pa.Table) -> pa.ChunkedArray:
        """Returns the texts of each row's answers, list<string>; empty where there is none, null where not known."""
        import pyarrow as pa

        found = [None if known is None else [text for text, _ in known] for _, _, known in self._read(rows)]
        return pa.chunked_array([pa.array(found, pa.list_(pa.string()))])

    def observe(self, rows: pa.Table) -> AnswersState:
        """Counts; DataError, with row and field, for an answer that does not stand in its context."""
        known = [answers for _, _, answers in self._read(rows) if answers is not None]
        answered = sum(bool(answers) for answers in known)
        return AnswersState(answered=answered, unanswerable=len(known) - answered)

    def combine(self, left: AnswersState, right: AnswersState) -> AnswersState:
        """Adds two counts."""
        return AnswersState(
            answered=left.answered + right.answered, unanswerable=left.unanswerable + right.unanswerable
        )

    def finish(self, seen: AnswersState) -> AnswersState:
        """Returns the counts; DataError where no question has an answer."""
        if not seen.answered:
            raise DataError(
                f"column {self.config.answers!r} has no answer in the train split",
                code="no_answer",
                field=self.config.answers,
                remedy="check that it names the right column",
            )
        return seen

    def head(self, state: AnswersState) -> Head:
        """Returns a head that scores each token as the beginning and as the end of the answer."""
        return Head(kind=self.head_kind)

    def encode(self, rows: pa.Table, *, state: AnswersState, tokenizer: Tokenizer, budget: Budget) -> pa.Table:
        """Returns the windows of each row, with `start_positions` and `end_positions`, and answers in `target`.

        The first answer is learned from. A window that does not hold all of it has the positions 0, as one of a
        question without an answer: the model is shown that it holds none.
        """
        import pyarrow as pa

        columns: dict[str, list[Any]] = {name: [] for name in (ENCODED_ROW, _OFFSETS, _CONTEXT, STARTS, ENDS, TARGET)}
        inputs: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": []}
        if "token_type_ids" in tokenizer.model_input_names:
            inputs["token_type_ids"] = []
        for row, (question, context, answers) in enumerate(self._read(rows)):
            options = {"max_tokens": budget.max_tokens, "stride": self.config.stride}
            for window in windows(question, context, tokenizer=tokenizer, **options):
                start, end = _position(window, answers)
                told = (row, [at for pair in window.offsets for at in pair], context, start, end)
                texts = None if answers is None else [text for text, _ in answers]
                for name, value in zip(columns, (*told, texts), strict=True):
                    columns[name].append(value)
                for name in inputs:
                    inputs[name].append(window.inputs[name])
        kinds: dict[str, pa.DataType] = {
            "input_ids": pa.list_(pa.int32()),
            "attention_mask": pa.list_(pa.int8()),
            "token_type_ids": pa.list_(pa.int8()),
            _OFFSETS: pa.list_(pa.int32()),
            _CONTEXT: pa.string(),
            TARGET: pa.list_(pa.string()),
        }
        if self.config.answers not in rows.column_names:
            columns = {name: values for name, values in columns.items() if name not in (STARTS, ENDS, TARGET)}
        return pa.table(
            {name: pa.array(values, kinds.get(name, pa.int64())) for name, values in {**columns, **inputs}.items()}
        )

    def decode(self, outputs: pa.Table, encoded: pa.Table, *, state: AnswersState) -> pa.Table:
        """Returns `prediction` (the answer's text, empty for none), `score`, `start` and `end`, and `target`.

        The best piece of any window; none where train has questions without an answer, and the least score of none
        over the windows is above that of the piece by more than the threshold (Devlin et al. 2019, section 4.3).
        """
        import numpy as np
        import pyarrow as pa

        found: dict[int, _Found] = {}
        places = zip(*(encoded.column(name).to_pylist() for name in (ENCODED_ROW, _OFFSETS, _CONTEXT)), strict=True)
        for logits, (row, flat, context) in zip(rows_of_logits(outputs, width=2), places, strict=True):
            one = found.setdefault(row, _Found())
            offsets = np.asarray(flat, dtype=np.int64).reshape(-1, 2)
            one.see_none(logits)
            best = best_span(logits, offsets[:, 0] != OUTSIDE, longest=self.config.max_answer_tokens)
            if best is not None and best[0] > one.score:
                one.take(best, logits, start=int(offsets[best[1], 0]), end=int(offsets[best[2], 1]), context=context)
        if state.unanswerable:
            for one in found.values():
                if one.none - one.score > self.config.null_threshold:
                    one.forget()
        rows = list(found.values())
        columns: dict[str, Any] = {
            ENCODED_ROW: pa.array(found, pa.int64()),
            PREDICTION: pa.array([one.text for one in rows], pa.string()),
            SCORE: pa.array([one.share for one in rows], pa.float32()),
            "start": pa.array([one.start for one in rows], pa.int64()),
            "end": pa.array([one.end for one in rows], pa.int64()),
        }
        if TARGET in encoded.column_names:
            first = np.unique(encoded.column(ENCODED_ROW).to_numpy(), return_index=True)[1]
            columns[TARGET] = encoded.column(TARGET).take(pa.array(first))
        return pa.table(columns)

    def request(self, state: AnswersState) -> type[BaseModel]:
        """Returns the model of one question: the question and its context."""
        fields: dict[str, Any] = {
            name: (StrictStr, Field(alias=column, min_length=1))
            for name, column in (("question_0", self.config.question), ("context_0", self.config.context))
        }
        return create_model("QuestionAnsweringRequest", __base__=_Question, **fields)

    def response(self, state: AnswersState) -> type[BaseModel]:
        """Returns the model of one answer, `{answer, score, start, end}`; it also reads a row that `decode` made."""
        return AnswerResponse

    def _read(self, rows: pa.Table) -> Iterator[tuple[str, str, list[Answer] | None]]:
        """Yields question, context and answers of each row; None where the answers are not known."""
        config = self.config
        for name in (config.question, config.context):
            if name not in rows.column_names:
                raise DataError(f"there is no column {name!r}", field=name, accepted=", ".join(rows.column_names))
        given = config.answers in rows.column_names
        known = rows.column(config.answers).to_pylist() if given else [None] * rows.num_rows
        texts = (rows.column(name).to_pylist() for name in (config.question, config.context))
        for row, (question, context, answers) in enumerate(zip(*texts, known, strict=True)):
            try:
                yield question or "", context or "", None if answers is None else _answers(answers, context or "")
            except ValueError as error:
                raise _wrong(rows, row, str(error), question or "", config.answers) from error


class _Found:
    """The best answer of one row's windows so far."""

    def __init__(self) -> None:
        self.score, self.none, self.none_share = -math.inf, math.inf, 0.0
        self.forget()

    def forget(self) -> None:
        self.text, self.share = "", self.none_share
        self.start: int | None = None
        self.end: int | None = None

    def see_none(self, logits: np.ndarray) -> None:
        score = float(logits[0].sum())
        if score < self.none:
            self.none, self.none_share = score, _share(logits, 0, 0)
            if self.start is None:
                self.share = self.none_share

    def take(self, best: tuple[float, int, int], logits: np.ndarray, *, start: int, end: int, context: str) -> None:
        self.score, self.start, self.end, self.text = best[0], start, end, context[start:end]
        self.share = _share(logits, best[1], best[2])


def _share(logits: np.ndarray, first: int, last: int) -> float:
    """Returns the probability of a piece within its window: that of its beginning times that of its end."""
    import numpy as np

    raised = np.exp(logits - logits.max(axis=0))
    shares = raised / raised.sum(axis=0)
    return float(shares[first, 0] * shares[last, 1])


def _position(window: Window, answers: list[Answer] | None) -> tuple[int, int]:
    if not answers:
        return 0, 0
    text, start = answers[0]
    inner = start + len(text) - len(text.lstrip())  # offsets begin with no space
    return place_of(window.offsets, inner, start + len(text.rstrip())) or (0, 0)


def _answers(given: Any, context: str) -> list[Answer]:
    """Returns texts and beginnings; ValueError for another shape, and for what does not stand in the context."""
    if isinstance(given, Mapping):
        starts = given.get("answer_start", given.get("start"))
        if not isinstance(given.get("text"), list) or not isinstance(starts, list) or len(starts) != len(given["text"]):
            raise ValueError(f"{given!r} is not {{text: [...], answer_start: [...]}}")
        pairs = list(zip(given["text"], starts, strict=True))
    elif isinstance(given, list) and all(isinstance(one, Mapping) for one in given):
        pairs = [
            (one.get("text"), one.get("answer_start") if one.get("start") is None else one["start"]) for one in given
        ]
    else:
        raise ValueError(f"{given!r} is no list of {{text, start}}")
    for text, start in pairs:
        if not isinstance(text, str) or not text or not isinstance(start, int):
            raise ValueError(f"the answer {text!r} at {start!r} needs a text and a start")
        if start < 0 or context[start : start + len(text)] != text:
            raise ValueError(f"the answer {text!r} does not stand at {start} of its context{_elsewhere(context, text)}")
    return pairs


def _elsewhere(context: str, text: str) -> str:
    found = context.find(text)
    return f", but at {found}" if found >= 0 else ""


def _wrong(rows: pa.Table, row: int, message: str, question: str, field: str) -> DataError:
    origin = {name: rows.column(name)[row].as_py() for name in (ORIGIN, LINE) if name in rows.column_names}
    return DataError(
        f"row {row}, {question[:60]!r}: {message}",
        code="bad_answer",
        file=origin.get(ORIGIN),
        line=origin.get(LINE),
        field=field,
        remedy="count `start` in characters of the context as it is after the transforms: `clean` and `anonymize` "
        "change it",
    )


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)


class AnswerResponse(BaseModel):
    """One answer."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    answer: str = Field(validation_alias=PREDICTION, description="The answer; empty where the context holds none.")
    score: float = Field(ge=0, le=1, description="The probability of its beginning times that of its end.")
    start: int | None = Field(description="The first character in the context.")
    end: int | None = Field(description="The character after the last.")
