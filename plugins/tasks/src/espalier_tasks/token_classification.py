"""The task `token-classification`: a tag for each word, or entities in a text, in IOB2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from espalier_sdk.choice import PluginConfig
from espalier_sdk.columns import ENCODED_ROW, LABELS, PREDICTION, RESERVED_PREFIX, SCORES, TARGET
from espalier_sdk.errors import DataError
from espalier_sdk.groups import did_you_mean
from espalier_sdk.model import Columns, Head, HeadKind
from pydantic import BaseModel, ConfigDict, Field, StrictStr, create_model, field_validator, model_validator

from espalier_tasks.labels import LabelState, combine_labels
from espalier_tasks.tags import OUTSIDE, Span, check_places, entities, fault, repaired, tags_of, words_of
from espalier_tasks.token_logits import rows_of_logits

if TYPE_CHECKING:
    import pyarrow as pa
    from espalier_sdk.model import Budget
    from transformers import PreTrainedTokenizerBase as Tokenizer

_FIRST = f"{RESERVED_PREFIX}first"  # list<int32>: the place of each word's first token; -1 where the model sees none
_PLACES = f"{RESERVED_PREFIX}places"  # list<int32>: start and end of each word in the text, one after the other
CUT_WORDS = "cut_words"  # int64: words that the model did not see
_IGNORED = -100


class TokenClassificationConfig(PluginConfig):
    """Which columns are read, words with tags or a text with spans, and which types there are."""

    tokens: str | None = Field(default=None, description="The column of words, a list; goes with `tags`.")
    tags: str | None = Field(default=None, description="The column of tags, a list: O, B-x or I-x for each word.")
    text: str | None = Field(default=None, description="The column of text; goes with `spans`.")
    spans: str | None = Field(
        default=None,
        description="The column of entities, a list of {start, end, label}; the end is not included. Where they have a "
        "`text` too, it is compared.",
    )
    labels: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="All types of entities in a lasting order; default: those of the train split, sorted.",
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = [name for name in ("tokens", "tags", "text", "spans") if getattr(self, name)]
        if given not in (["tokens", "tags"], ["text", "spans"]):
            raise ValueError(f"{' and '.join(given) or 'nothing'} given: must be tokens and tags, or text and spans")
        if getattr(self, given[0]) == getattr(self, given[1]):
            raise ValueError(f"{given[0]} and {given[1]} name one column: the answer must not be in the question")
        return self

    @field_validator("labels")
    @classmethod
    def _different(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (len(set(value)) < len(value) or not all(value)):
            raise ValueError("must be different types, such as PERSON, without B- and I-")
        return value


class TokenClassification:
    """A tag for each word; words beyond the budget are answered as outside, and counted."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[TokenClassificationConfig]] = TokenClassificationConfig
    State: ClassVar[type[LabelState]] = LabelState
    head_kind: ClassVar[HeadKind] = "token-classification"

    def __init__(self, config: TokenClassificationConfig) -> None:
        self.config = config

    def columns(self) -> Columns:
        """Returns the columns of words and tags, or of text and spans."""
        if self.config.tokens and self.config.tags:
            return Columns(required={self.config.tokens: "tokens", self.config.tags: "tags"})
        return Columns(required={self._question: "text", self._target: "spans"})

    def words(self, rows: pa.Table) -> pa.ChunkedArray:
        """Returns the words of each row, list<string>."""
        import pyarrow as pa

        found = [[text[start:end] for start, end in places] for text, places in self._read(rows)]
        return pa.chunked_array([pa.array(found, pa.list_(pa.string()))])

    def targets(self, rows: pa.Table) -> pa.ChunkedArray:
        """Returns the tags of each row, list<string>, null where they are not known.

        Raises DataError, with the row's beginning, for tags that are not IOB2 or not one per word, and for spans that
        do not fit the text.
        """
        import pyarrow as pa

        if self._target not in rows.column_names:
            raise DataError(
                f"there is no column {self._target!r}", field=self._target, accepted=", ".join(rows.column_names)
            )
        column = rows.column(self._target).to_pylist()
        found = [self._tags(given, words, text) for given, (text, words) in zip(column, self._read(rows), strict=True)]
        return pa.chunked_array([pa.array(found, pa.list_(pa.string()))])

    def observe(self, rows: pa.Table) -> LabelState:
        """Counts the entities of each type; DataError for a row without a word."""
        counts: dict[str, int] = {}
        for (text, words), tags in zip(self._read(rows), self.targets(rows).to_pylist(), strict=True):
            if not words:
                raise self._wrong(text, "there is no word", "drop such rows with the transform `filter`")
            for tag in tags or ():
                if tag.startswith("B-"):
                    counts[tag[2:]] = counts.get(tag[2:], 0) + 1
        return LabelState(counts=counts)

    def combine(self, left: LabelState, right: LabelState) -> LabelState:
        """Adds two counts."""
        return combine_labels(left, right)

    def finish(self, seen: LabelState) -> LabelState:
        """Returns the tags in the order of the model's outputs; DataError without an entity, or for an unknown type."""
        declared = self.config.labels
        strange = [kind for kind in sorted(seen.counts) if declared is not None and kind not in declared]
        if strange:
            raise DataError(
                f"column {self._target!r} has {seen.counts[strange[0]]} entities of type {strange[0]!r}, which is not "
                "among `labels`",
                code="unknown_label",
                field=self._target,
                given=strange[:10],
                accepted=", ".join(declared or ()),
                remedy=did_you_mean(strange[0], list(declared or ())) or "add it to `labels`, or leave `labels` out",
            )
        if not seen.counts:
            raise DataError(
                f"column {self._target!r} has no entity in the train split",
                code="one_class",
                field=self._target,
                remedy="check that it names the right column, and that tags are B-x and I-x",
            )
        kinds = declared or tuple(sorted(seen.counts))
        tags = (OUTSIDE, *(f"{mark}-{kind}" for kind in kinds for mark in "BI"))
        return LabelState(labels=tags, counts={kind: seen.counts.get(kind, 0) for kind in sorted(kinds)})

    def head(self, state: LabelState) -> Head:
        """Returns a head with one output per tag, for each token."""
        return Head(kind=self.head_kind, outputs=len(state.labels))

    def encode(self, rows: pa.Table, *, state: LabelState, tokenizer: Tokenizer, budget: Budget) -> pa.Table:
        """Returns tokens, with a label on the first token of each word and -100 elsewhere, and tags in `target`.

        A tag whose type training never saw is learned from as nothing, and stays in `target`.
        """
        import pyarrow as pa

        read = list(self._read(rows))
        tokens: Any = (
            tokenizer(
                [text for text, _ in read],
                truncation=True,
                max_length=budget.max_tokens,
                padding=False,
                return_token_type_ids=False,
                return_offsets_mapping=True,
            )
            if read
            else {"input_ids": [], "attention_mask": [], "offset_mapping": []}
        )
        firsts = [
            first_tokens(words, offsets) for (_, words), offsets in zip(read, tokens["offset_mapping"], strict=True)
        ]
        columns: dict[str, Any] = {
            ENCODED_ROW: pa.array(range(rows.num_rows), pa.int64()),
            "input_ids": pa.array(tokens["input_ids"], pa.list_(pa.int32())),
            "attention_mask": pa.array(tokens["attention_mask"], pa.list_(pa.int8())),
            _FIRST: pa.array(firsts, pa.list_(pa.int32())),
            _PLACES: pa.array([[at for word in words for at in word] for _, words in read], pa.list_(pa.int32())),
        }
        if self._target in rows.column_names:
            targets = self.targets(rows)
            place = {tag: at for at, tag in enumerate(state.labels)}
            labels = [
                _labels(tags or (), first, place, len(ids))
                for tags, first, ids in zip(targets.to_pylist(), firsts, tokens["input_ids"], strict=True)
            ]
            columns[LABELS] = pa.array(labels, pa.list_(pa.int64()))
            columns[TARGET] = targets
        return pa.table(columns)

    def decode(self, outputs: pa.Table, encoded: pa.Table, *, state: LabelState) -> pa.Table:
        """Returns `prediction` (a tag per word), `scores` (softmax of that tag), `cut_words`, and `target`.

        An I- that goes on with nothing is answered as B-. For texts there is `entities` too.
        """
        import numpy as np
        import pyarrow as pa

        predictions, scores, found, cut = [], [], [], []
        firsts, places = encoded.column(_FIRST).to_pylist(), encoded.column(_PLACES).to_pylist()
        for logits, first, flat in zip(rows_of_logits(outputs, width=len(state.labels)), firsts, places, strict=True):
            at = np.asarray(first, dtype=np.int64)
            seen = logits[at[at >= 0]]  # (words that the model saw, tags)
            raised = np.exp(seen - seen.max(axis=1, keepdims=True)) if len(seen) else seen
            best = raised.argmax(axis=1) if len(seen) else np.zeros(0, np.int64)
            chosen = np.zeros(len(at), dtype=np.int64)  # OUTSIDE
            share = np.zeros(len(at), dtype=np.float32)
            chosen[at >= 0] = best
            share[at >= 0] = raised.max(axis=1) / raised.sum(axis=1) if len(seen) else 0
            tags = repaired([state.labels[tag] for tag in chosen])
            words = list(zip(flat[::2], flat[1::2], strict=True))
            predictions.append(tags)
            scores.append(share.tolist())
            found.append(entities(tags, words, share.tolist()))
            cut.append(int((at < 0).sum()))
        kind = pa.struct(
            {"start": pa.int32(), "end": pa.int32(), "label": pa.string(), "score": pa.float32()}  # type: ignore[arg-type]
        )
        columns: dict[str, Any] = {
            ENCODED_ROW: encoded.column(ENCODED_ROW),
            PREDICTION: pa.array(predictions, pa.list_(pa.string())),
            SCORES: pa.array(scores, pa.list_(pa.float32())),
            CUT_WORDS: pa.array(cut, pa.int64()),
        }
        if self.config.text:
            columns["entities"] = pa.array(found, pa.list_(kind))
        if TARGET in encoded.column_names:
            columns[TARGET] = encoded.column(TARGET)
        return pa.table(columns)

    def request(self, state: LabelState) -> type[BaseModel]:
        """Returns the model of one question: the words, or the text."""
        kind: Any = StrictStr if self.config.text else list[StrictStr]
        fields: dict[str, Any] = {"question": (kind, Field(alias=self._question, min_length=1))}
        return create_model("TokenClassificationRequest", __base__=_Question, **fields)

    def response(self, state: LabelState) -> type[BaseModel]:
        """Returns the model of one answer: `{entities}` for a text, `{tags, scores}` for words; it reads a row too."""
        return EntitiesResponse if self.config.text else TagsResponse

    @property
    def _question(self) -> str:
        return self.config.tokens or self.config.text or ""

    @property
    def _target(self) -> str:
        return self.config.tags or self.config.spans or ""

    def _read(self, rows: pa.Table) -> Iterator[tuple[str, list[Span]]]:
        """Yields the text of each row with the places of its words."""
        if self._question not in rows.column_names:
            raise DataError(
                f"there is no column {self._question!r}", field=self._question, accepted=", ".join(rows.column_names)
            )
        for value in rows.column(self._question).to_pylist():
            if self.config.text:
                text = value or ""
                yield text, words_of(text)
                continue
            if not isinstance(value, list | None):
                raise self._wrong(str(value), "is no list of words", "say `text` and `spans` where the column is text")
            words = [str(word) for word in value or ()]
            places, start = [], 0
            for word in words:
                places.append((start, start + len(word)))
                start += len(word) + 1
            yield " ".join(words), places

    def _tags(self, given: Any, words: Sequence[Span], text: str) -> list[str] | None:
        if given is None:
            return None
        if self.config.spans:
            try:
                tags = tags_of(given, words)
                check_places(given, text)
            except (ValueError, KeyError, TypeError) as error:
                remedy = "give {start, end, label}, apart from each other, as they stand in this very text"
                raise self._wrong(text, str(error), remedy) from error
            return tags
        if not isinstance(given, list) or len(given) != len(words):
            count = len(given) if isinstance(given, list) else "no list of"
            raise self._wrong(text, f"{len(words)} words have {count} tags", "give one tag for each word")
        if (wrong := fault(given)) is not None:
            raise self._wrong(text, wrong, "write the tags in IOB2")
        return given

    def _wrong(self, text: str, message: str, remedy: str) -> DataError:
        shown = text if len(text) <= 60 else f"{text[:60]}..."
        return DataError(f"row {shown!r}: {message}", code="bad_tags", field=self._target, given=shown, remedy=remedy)


def first_tokens(words: Sequence[Span], offsets: Sequence[Span]) -> list[int]:
    """Returns the place of the first token of each word, or -1 where there is none.

    A token belongs to the word that holds its last character: some tokenizers put the space before a word into it.
    """
    found = [-1] * len(words)
    word = 0
    for place, (start, end) in enumerate(offsets):
        if start == end:
            continue  # a special token
        while word < len(words) and words[word][1] < end:
            word += 1
        if word < len(words) and words[word][0] < end and found[word] < 0:
            found[word] = place
    return found


def _labels(tags: Sequence[str], first: Sequence[int], place: dict[str, int], length: int) -> list[int]:
    labels = [_IGNORED] * length
    for tag, at in zip(tags, first, strict=False):
        if at >= 0:
            labels[at] = place.get(tag, _IGNORED)
    return labels


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)


class Entity(BaseModel):
    """One entity of a text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int = Field(ge=0, description="The first character.")
    end: int = Field(ge=1, description="The character after the last.")
    label: str = Field(description="The type.")
    score: float = Field(ge=0, le=1, description="The least score of its words.")


class EntitiesResponse(BaseModel):
    """The entities of a text, in their order."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    entities: list[Entity] = Field(description="The entities in the order of the text.")
    cut_words: int = Field(default=0, ge=0, description="Words beyond what the model reads, answered as outside.")


class TagsResponse(BaseModel):
    """A tag for each word."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    tags: list[str] = Field(validation_alias=PREDICTION, description="A tag for each word.")
    scores: list[float] = Field(description="The score of each tag; 0 for a word that was not read.")
    cut_words: int = Field(default=0, ge=0, description="Words beyond what the model reads, answered as outside.")
