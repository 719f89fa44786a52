"""The transform `clean`: broken Unicode repaired, tags and invisible characters out, white space made even."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from espalier_sdk.choice import PluginConfig
from espalier_sdk.model import SPLITS, Split
from pydantic import Field

from espalier_transforms.columns import map_texts, text_columns
from espalier_transforms.markup import without_markup

if TYPE_CHECKING:
    import pyarrow as pa

# Zero-width space, word joiner and invisible operators, byte-order mark, soft hyphen, direction marks, line and
# paragraph separators (these become line ends), interlinear marks, tags.
_LINE_ENDS = re.compile("\r\n?|[\u2028\u2029\u0085\x0b\x0c]")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"
    "\ufeff\ufff9-\ufffb]"
)
# A joiner makes words in Persian and Hindi and families of emoji; between ASCII characters it is only dirt.
_IDLE_JOINER = re.compile("(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])")
_BLANKS = re.compile(r"[^\S\n]+")
_BLANKS_AT_LINE_END = re.compile(r" ?\n ?")
_EMPTY_LINES = re.compile(r"\n{3,}")


class CleanConfig(PluginConfig):
    """What is cleaned."""

    columns: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="The columns that are cleaned; default: all columns of text."
    )
    tags: Literal["remove", "keep"] = Field(
        default="remove", description="Whether HTML tags go; entities go with them."
    )


class Clean:
    """Repairs broken Unicode (mojibake), takes tags and invisible characters out, and makes white space even.

    Acts on all splits and at serving, so that a model sees the same kind of text everywhere. Drops no row.
    """

    contract: ClassVar[int] = 1
    Config: ClassVar[type[CleanConfig]] = CleanConfig
    kind: ClassVar[Literal["record"]] = "record"
    at_serving: ClassVar[bool] = True
    rewrites_text: ClassVar[bool] = True

    def __init__(self, config: CleanConfig) -> None:
        self.config = config

    @property
    def splits(self) -> frozenset[Split]:
        """Returns all splits."""
        return frozenset(SPLITS)

    def apply(self, rows: pa.Table) -> pa.Table:
        """Returns rows with clean text; DataError where a chosen column holds no text."""
        change = clean_with_tags if self.config.tags == "keep" else clean_text
        return map_texts(rows, text_columns(rows, self.config.columns), change)


def clean_text(text: str) -> str:
    """Returns a text with everything repaired and taken out."""
    return text if _is_plain(text) else _even(without_markup(_visible(text)))


def clean_with_tags(text: str) -> str:
    """Returns a text as `clean_text` does, with its tags and entities left in."""
    return text if _is_plain(text) else _even(_visible(text))


def _is_plain(text: str) -> bool:
    """Tells whether nothing can be wrong with a text: the commonest case, and a hundred times as fast to see."""
    return (
        text.isascii()
        and text.isprintable()
        and "<" not in text
        and "&" not in text
        and "  " not in text
        and text[:1] != " "
        and text[-1:] != " "
    )


def _visible(text: str) -> str:
    import ftfy

    text = ftfy.fix_text(text, _repairs())
    text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))
    return _IDLE_JOINER.sub("", text) if "\u200c" in text or "\u200d" in text else text


def _even(text: str) -> str:
    text = _BLANKS_AT_LINE_END.sub("\n", _BLANKS.sub(" ", text))
    return _EMPTY_LINES.sub("\n\n", text).strip()


@cache
def _repairs() -> Any:
    import ftfy

    # Typographic quotes are the writer's, not damage; entities are read after the tags.
    return ftfy.TextFixerConfig(uncurl_quotes=False, unescape_html=False, normalization="NFC")
