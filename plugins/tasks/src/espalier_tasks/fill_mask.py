"""The task `fill-mask`: words that are left out of a text, as encoders are pre-trained on them and asked for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar

from espalier_sdk.choice import PluginConfig, State
from espalier_sdk.columns import (
    ASKED,
    ENCODED_ROW,
    LABELS,
    LINE,
    NLL,
    ORIGIN,
    PREDICTION,
    RESERVED_PREFIX,
    RIGHT_TOKENS,
    SCORED_TOKENS,
    TARGET,
    TOP_SCORES,
    TOP_TEXTS,
    TOP_TOKENS,
    WORDS,
)
from espalier_sdk.errors import DataError
from espalier_sdk.model import Columns, Head, HeadKind
from pydantic import BaseModel, Field, model_validator

from espalier_tasks.gaps import FILLS, GAP, FillMaskResponse, gap_request, written
from espalier_tasks.texts import as_text

if TYPE_CHECKING:
    import pyarrow as pa
    from espalier_sdk.model import Budget
    from transformers import PreTrainedTokenizerBase as Tokenizer

_TEXT = f"{RESERVED_PREFIX}text"  # str or null: the text of a row, beside its first window
_IGNORED_LABEL = -100  # what torch's cross entropy leaves out


class FillMaskConfig(PluginConfig):
    """Which column is read, how much of a held-out text is asked for, and how many answers are given."""

    text: str = Field(description="The column of plain texts, to learn a language from.")
    masked: str = Field(default="masked", description="The column of questions: texts with [MASK] where words miss.")
    share: float = Field(
        default=0.15, gt=0, le=0.5, description="Share of a held-out text's tokens that are asked for; one at least."
    )
    top: int = Field(default=5, ge=1, le=10, description="Answers given for each [MASK].")

    @model_validator(mode="after")
    def _two_columns(self) -> FillMaskConfig:
        if self.text == self.masked:
            raise ValueError(f"column {self.text!r} cannot be whole text and question at once")
        return self


class FillMaskState(State):
    """Nothing is learned from the train split but its size."""

    rows: int = Field(default=0, description="Rows of the train split.")


@dataclass(frozen=True, slots=True)
class _Window:
    """One piece of a text: its tokens, which word each is of (-1: special), and the places that may be asked for."""

    row: int
    ids: list[int]
    words: list[int]
    places: list[int]
    text: str | None


class FillMask:
    """Words are left out of a text and guessed from those around them (Devlin et al. 2019)."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[FillMaskConfig]] = FillMaskConfig
    State: ClassVar[type[FillMaskState]] = FillMaskState
    head_kind: ClassVar[HeadKind] = "masked-lm"

    def __init__(self, config: FillMaskConfig) -> None:
        self.config = config

    def columns(self) -> Columns:
        """Returns the column of texts."""
        return Columns(required={self.config.text: "text"})

    def observe(self, rows: pa.Table) -> FillMaskState:
        """Counts rows; raises DataError where the column is not there or holds no text."""
        as_text(rows, self.config.text)
        return FillMaskState(rows=rows.num_rows)

    def combine(self, left: FillMaskState, right: FillMaskState) -> FillMaskState:
        """Adds two counts."""
        return FillMaskState(rows=left.rows + right.rows)

    def finish(self, seen: FillMaskState) -> FillMaskState:
        """Returns the count."""
        return seen

    def head(self, state: FillMaskState) -> Head:
        """Returns an encoder's own head over the vocabulary."""
        return Head(kind=self.head_kind)

    def encode(self, rows: pa.Table, *, state: FillMaskState, tokenizer: Tokenizer, budget: Budget) -> pa.Table:
        """Returns `row`, `input_ids`, `attention_mask`, the places that are asked for and the words of the tokens.

        Of a whole text a share of the tokens is masked, chosen by a hash of the window, so that the same text is
        always asked the same; `labels` are the tokens there, -100 elsewhere, and `target` is the text. A long text
        becomes several rows. A question has its own masks and no label; DataError where it has none.
        """
        mask = _mask_of(tokenizer)
        if self.config.text in rows.column_names:
            texts = [text or "" for text in as_text(rows, self.config.text).to_pylist()]
            windows = list(_windows(texts, tokenizer, budget))
            return _table(windows, [self._chosen(one) for one in windows], mask, labelled=True)
        texts = [text or "" for text in as_text(rows, self.config.masked).to_pylist()]
        own = str(tokenizer.mask_token)
        texts = [text.replace(own, GAP) for text in texts]
        if (place := next((at for at, text in enumerate(texts) if GAP not in text), None)) is not None:
            raise _no_gap(rows, place, self.config.masked)
        windows = list(_windows(texts, tokenizer, budget))
        return _table(windows, [_equal(one.ids, mask) for one in windows], mask, labelled=False)

    def decode(self, outputs: pa.Table, encoded: pa.Table, *, state: FillMaskState) -> pa.Table:
        """Returns `row` and `prediction`: the text with its gaps filled, and `fills`, tokens and scores per gap.

        Of a whole text there is nothing to fill: `prediction` is null, and `nll`, `scored_tokens`, `right_tokens` and
        `target` tell how well its masked tokens were guessed.
        """
        if LABELS in encoded.column_names:
            return _scored(outputs, encoded)
        return _filled(outputs, encoded, top=self.config.top)

    def request(self, state: FillMaskState) -> type[BaseModel]:
        """Returns the model of one question: a text with at least one gap."""
        return gap_request(self.config.masked)

    def response(self, state: FillMaskState) -> type[BaseModel]:
        """Returns the model of one answer, `{text, fills}`; it also reads a row that `decode` made."""
        return FillMaskResponse

    def _chosen(self, window: _Window) -> list[int]:
        """Returns the places of a held-out window that are asked for, sorted: its share of the tokens, one at least."""
        import numpy as np

        if not window.places:
            return []
        seed = blake2b(np.asarray(window.ids, dtype="<i4").tobytes(), digest_size=8).digest()
        count = max(1, round(self.config.share * len(window.places)))
        chance = np.random.default_rng(int.from_bytes(seed, "little"))
        chosen: list[int] = chance.choice(window.places, size=count, replace=False).tolist()
        return sorted(chosen)


def _windows(texts: Sequence[str], tokenizer: Tokenizer, budget: Budget) -> Iterator[_Window]:
    """Yields each text in pieces that fit the budget and do not overlap."""
    if not texts:
        return
    call: Any = tokenizer
    found = call(
        [text.replace(GAP, str(tokenizer.mask_token)) for text in texts],
        truncation=True,
        max_length=budget.max_tokens,
        padding=False,
        return_overflowing_tokens=True,
        return_token_type_ids=False,
    )
    special, last = set(tokenizer.all_special_ids), -1
    for place, (row, ids) in enumerate(zip(found["overflow_to_sample_mapping"], found["input_ids"], strict=True)):
        words = [
            -1 if word is None or token in special else word
            for word, token in zip(found.word_ids(place), ids, strict=True)
        ]
        places = [at for at, word in enumerate(words) if word >= 0]
        yield _Window(row, ids, words, places, texts[row] if row != last else None)
        last = row


def _table(windows: Sequence[_Window], asked: Sequence[list[int]], mask: int, *, labelled: bool) -> pa.Table:
    import pyarrow as pa

    ids = [list(one.ids) for one in windows]
    labels = [[_IGNORED_LABEL] * len(one.ids) for one in windows]
    for tokens, wanted, places in zip(ids, labels, asked, strict=True):
        for place in places:
            wanted[place], tokens[place] = tokens[place], mask
    columns: dict[str, pa.Array] = {
        ENCODED_ROW: pa.array([one.row for one in windows], pa.int64()),
        "input_ids": pa.array(ids, pa.list_(pa.int32())),
        "attention_mask": pa.array([[1] * len(one) for one in ids], pa.list_(pa.int8())),
        ASKED: pa.array(asked, pa.list_(pa.int32())),
    }
    if labelled:
        columns[LABELS] = pa.array(labels, pa.list_(pa.int64()))
        columns[WORDS] = pa.array([one.words for one in windows], pa.list_(pa.int32()))
        columns[TARGET] = pa.array([one.text for one in windows], pa.string())
    else:
        columns[_TEXT] = pa.array([one.text for one in windows], pa.string())
    return pa.table(columns)


def _scored(outputs: pa.Table, encoded: pa.Table) -> pa.Table:
    """Returns the sums of each text over its windows."""
    import pyarrow as pa

    tops, labels = outputs.column(TOP_TOKENS).to_pylist(), encoded.column(LABELS).to_pylist()
    right = [
        sum(top[0] == wanted[place] for top, place in zip(row, places, strict=True))
        for row, wanted, places in zip(tops, labels, encoded.column(ASKED).to_pylist(), strict=True)
    ]
    sums = {name: outputs.column(name) for name in (NLL, SCORED_TOKENS)} | {RIGHT_TOKENS: pa.array(right, pa.int64())}
    table = pa.table({ENCODED_ROW: encoded.column(ENCODED_ROW), **sums, TARGET: encoded.column(TARGET)})
    asked = [*((name, "sum") for name in sums), (TARGET, "first")]
    found = table.group_by(ENCODED_ROW, use_threads=False).aggregate(asked)
    found = found.rename_columns([name.removesuffix("_sum").removesuffix("_first") for name in found.column_names])
    return found.append_column(PREDICTION, pa.nulls(found.num_rows, pa.string()))


def _filled(outputs: pa.Table, encoded: pa.Table, *, top: int) -> pa.Table:
    import pyarrow as pa

    fills: dict[int, list[list[dict[str, Any]]]] = {}
    texts: dict[int, str] = {}
    columns = [
        encoded.column(ENCODED_ROW),
        encoded.column(_TEXT),
        outputs.column(TOP_TEXTS),
        outputs.column(TOP_SCORES),
    ]
    for row, text, words, scores in zip(*(column.to_pylist() for column in columns), strict=True):
        texts.setdefault(row, text)
        gaps = [list(zip(*pair, strict=True))[:top] for pair in zip(words, scores, strict=True)]
        fills.setdefault(row, []).extend([{"text": word, "score": score} for word, score in gap] for gap in gaps)
    kind = pa.list_(pa.list_(pa.struct([("text", pa.string()), ("score", pa.float32())])))
    return pa.table(
        {
            ENCODED_ROW: pa.array(texts, pa.int64()),
            PREDICTION: pa.array([written(texts[row], fills[row]) for row in texts], pa.string()),
            FILLS: pa.array(fills.values(), kind),
        }
    )


def _equal(ids: Sequence[int], token: int) -> list[int]:
    return [place for place, one in enumerate(ids) if one == token]


def _mask_of(tokenizer: Tokenizer) -> int:
    mask: int | None = tokenizer.mask_token_id
    if mask is None:
        raise DataError(
            "the tokenizer has no mask token: a model could not be told which words miss",
            code="no_mask_token",
            field="mask_token",
            remedy="choose a base that is an encoder, or an encoder family of the strategy from-scratch",
        )
    return mask


def _no_gap(rows: pa.Table, place: int, column: str) -> DataError:
    """Returns the error for a question that asks nothing, with file and line where the table still has them."""
    where: dict[str, Any] = {}
    if ORIGIN in rows.column_names and LINE in rows.column_names:
        where = {"file": rows.column(ORIGIN)[place].as_py(), "line": rows.column(LINE)[place].as_py()}
    at = "" if where else f"row {place}: "
    remedy = f"write {GAP} where a word is missing"
    return DataError(
        f"{at}nothing is asked", code="no_mask", field=column, accepted=f"a text with {GAP}", remedy=remedy, **where
    )
