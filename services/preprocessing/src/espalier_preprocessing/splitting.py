"""Which split a row is in: by a hash of its group or content, or as a column says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from espalier_runtime.specs.models import SplitSpec
from espalier_sdk.columns import ID
from espalier_sdk.errors import DataError
from espalier_sdk.model import SPLITS, Split

if TYPE_CHECKING:
    import pyarrow as pa

_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def split_keys(rows: pa.Table, split: SplitSpec) -> list[str]:
    """Returns what decides each row's split, read from the corpus before any transform changes it.

    By hash: the group's value, or the row's id where it has none. By column: the column's word.
    """
    ids = rows.column(ID).to_pylist()
    if split.by == "column":
        assert split.column is not None, "the spec requires it"
        return [str(value or "") for value in rows.column(split.column).to_pylist()]
    if split.group is None:
        return [f"id:{row}" for row in ids]
    groups = rows.column(split.group).to_pylist()
    return [
        f"id:{row}" if group is None or group == "" else f"group:{group}"
        for row, group in zip(ids, groups, strict=True)
    ]


def splits_of(keys: Sequence[str], split: SplitSpec) -> list[Split]:
    """Returns the split of each key; DataError for a word that names none."""
    if split.by == "column":
        return [_by_word(key, split.column or "") for key in keys]
    return [_by_hash(key, split) for key in keys]


def refuse_empty(counts: Mapping[str, int], split: SplitSpec, *, untargeted: int = 0) -> None:
    """Raises DataError where a split that was asked for has no row; `untargeted` rows went for want of a target."""
    wanted = {"train": 1.0, "validation": split.validation, "test": split.test}
    empty = [name for name in SPLITS if wanted[name] > 0 and not counts.get(name)]
    if not empty:
        return
    held = ", ".join(f"{name} {counts.get(name, 0)}" for name in SPLITS)
    if split.by == "column":
        remedy = f"write {empty[0]} into column {split.column!r} of some rows"
        remedy += ", or set `split.test: 0` to do without" if empty[0] == "test" else ""
    else:
        remedy = "bring more rows, enlarge its share, or try another `split.salt`"
        remedy += "; a group stays whole, so few groups fill few splits" if split.group else ""
    remedy += f"; {untargeted} rows were dropped because their target is empty" if untargeted else ""
    raise DataError(
        f"the split leaves {' and '.join(empty)} empty (rows: {held})",
        code="empty_split",
        field=f"split.{empty[0]}" if empty[0] != "train" else "split",
        given=dict(counts),
        remedy=remedy,
    )


def _by_hash(key: str, split: SplitSpec) -> Split:
    digest = hashlib.blake2b(key.encode(), digest_size=8, key=split.salt.encode()[:64]).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < split.test:
        return "test"
    return "validation" if place < split.test + split.validation else "train"


def _by_word(word: str, column: str) -> Split:
    found = _WORDS.get(word.strip().lower())
    if found is None:
        raise DataError(
            f"column {column!r} says {word!r}, which is no split",
            code="unknown_split",
            field=column,
            given=word,
            accepted=", ".join(_WORDS),
            remedy="correct it, or drop these rows with the transform `filter` ({columns: {"
            + column
            + ": {equals: [train, validation, test]}}})",
        )
    return found
