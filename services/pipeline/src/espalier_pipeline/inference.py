"""Guesses from a user's own files: their format, which column is read, which is answered, who asks again.

Every guess is told in words, so that the user can correct it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from espalier_runtime.plugins import Plugins
from espalier_sdk import Choice
from espalier_sdk.columns import ERROR, RESERVED_PREFIX
from espalier_sdk.errors import DataError, EspalierError, SpecError
from espalier_sdk.groups import did_you_mean

from espalier_pipeline.counting import counted

SAMPLE_ROWS = 50_000  # read in a second; rows that stand label by label must not hide the later labels
_KNOWN = {".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".txt"}
_TARGET_WORDS = ("label", "target", "class", "category", "queue", "intent", "topic", "sentiment", "tag", "type", "y")
_TEXT_WORDS = ("text", "message", "body", "sentence", "content", "comment", "review", "question", "description")
_KEY = "key"  # the column in which `files` tells the list of a JSON document that a row stands in
_SPLIT = re.compile(r"(oos_|ood_)?(train(ing)?|val|valid|validation|dev|development|test|testing)(_\w+)?", re.I)
_GROUP = re.compile(r"(customer|user|author|account|client|patient|person|sender|session|conversation)(_?id)?$", re.I)


@dataclass(frozen=True)
class ColumnFacts:
    """What a sample says about one column."""

    name: str
    filled: int
    distinct: int
    mean_characters: float
    long_characters: int
    values: tuple[tuple[str, int], ...]


@dataclass
class Guess:
    """What was found out about a user's files."""

    options: dict[str, Any]
    rows: int
    facts: dict[str, ColumnFacts]
    text: str = ""
    target: str = ""
    group: str | None = None
    keys: Sequence[str] = ()  # of a document's lists, where the rows have a column that tells them
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> str:
        """Returns how many labels there are, or how many at least where the files were not read to their end."""
        count = self.facts[self.target].distinct
        return (
            counted(count, "class")
            if self.rows < SAMPLE_ROWS
            else f"at least {counted(count, 'class')} in the first {self.rows} rows"
        )


def guess(paths: Sequence[Path], *, text: str | None = None, target: str | None = None) -> Guess:
    """Returns what the files look like; DataError or SpecError where no classification can be made of them."""
    plugins = Plugins()
    options = _options(paths)
    rows = _sample(paths, options, plugins)
    if rows and _headless(rows, options):
        options["columns"] = [f"column_{index + 1}" for index in range(len(rows[0]))]
        rows = _sample(paths, options, plugins)
    if len(rows) < 10:
        message = f"{counted(len(rows), 'readable row')}: too few" + ("" if rows else ", the file has a header at most")
        raise DataError(message, file=str(paths[0]), remedy="give at least ten")
    found = Guess(options=options, rows=len(rows), facts={name: _facts(name, rows) for name in rows[0]})
    found.target = _require(found, target, "--target")
    found.text = _require(found, text, "--text") or _pick_text(found)
    found.keys = _keys(paths, options) if _KEY in found.facts else ()
    found.target = found.target or _pick_target(found)
    _refuse_one_class(found)
    if found.text == found.target:
        raise SpecError(
            f"column {found.text!r} cannot be both text and target",
            field="--text",
            given=found.text,
            accepted=", ".join(name for name in found.facts if name != found.target) or "another column",
        )
    _tell_splits(found)
    _rename(found)
    found.group = next(
        (name for name, one in found.facts.items() if _GROUP.search(name) and 1 < one.distinct < one.filled), None
    )
    return found


def _options(paths: Sequence[Path]) -> dict[str, Any]:
    for path in paths:
        if not path.exists():
            raise DataError("is not there", file=str(path), remedy="give the path of a file or folder")
    first = paths[0]
    suffixes = [suffix for suffix in first.suffixes if suffix not in (".gz", ".zst")]
    if first.is_dir() or (suffixes and suffixes[-1].lower() in _KNOWN):
        return {}
    return {"format": _sniff(first)}


def _sniff(path: Path) -> str:
    """Returns the format of a file whose name does not say it."""
    with path.open("rb") as file:
        head = file.read(65536).decode("utf-8", errors="replace")
    lines = [line for line in head.splitlines()[:50] if line.strip()]
    if head.lstrip().startswith("[") or (head.lstrip().startswith("{") and len(lines) < 3):
        return "json"
    if lines and all(line.lstrip().startswith("{") for line in lines[:5]):
        return "jsonl"
    for mark, name in (("\t", "tsv"), (",", "csv"), (";", "csv")):
        if lines and sum(mark in line for line in lines) >= 0.9 * len(lines):
            return name
    return "txt"


def _sample(paths: Sequence[Path], options: dict[str, Any], plugins: Plugins) -> list[dict[str, Any]]:
    config = {"paths": [str(path.resolve()) for path in paths], **options}
    source = plugins.load("espalier.sources", Choice(name="files", config=config))
    rows: list[dict[str, Any]] = []
    try:
        for part in source.parts():
            for batch in source.read(part):
                good = [row for row in batch.to_pylist() if row[ERROR] is None]
                rows += [
                    {key: value for key, value in row.items() if not key.startswith(RESERVED_PREFIX)} for row in good
                ]
                if len(rows) >= SAMPLE_ROWS:
                    return rows[:SAMPLE_ROWS]
    except EspalierError as error:
        if "columns" in options or "columns" not in str(error):
            raise
        options["columns"] = ["text", "label"]
        return _sample(paths, options, plugins)
    return rows


def _headless(rows: list[dict[str, Any]], options: dict[str, Any]) -> bool:
    """Tells whether what was taken for names is a row: a name that is also a frequent value, or a long text."""
    names = list(rows[0])
    if "columns" in options or not all(isinstance(row.get(names[0]), str | None) for row in islice(rows, 5)):
        return False
    counted = {name: Counter(str(row.get(name)) for row in rows) for name in names}
    return any(counted[name][name] >= max(2, len(rows) // 200) or len(name) > 80 or name.isdigit() for name in names)


def _facts(name: str, rows: list[dict[str, Any]]) -> ColumnFacts:
    texts = [str(row[name]).strip() for row in rows if row.get(name) is not None and str(row[name]).strip()]
    counted = Counter(texts)
    lengths = sorted(len(text) for text in texts) or [0]
    return ColumnFacts(
        name=name,
        filled=len(texts),
        distinct=len(counted),
        mean_characters=sum(lengths) / len(lengths),
        long_characters=lengths[int(0.95 * (len(lengths) - 1))],
        values=tuple(counted.most_common(200)),
    )


def _require(found: Guess, name: str | None, option: str) -> str:
    if name is not None and name not in found.facts:
        known = list(found.facts)
        raise SpecError(
            f"{option} {name}: the files have no such column",
            field=option,
            given=name,
            accepted=", ".join(known),
            remedy=did_you_mean(name, known),
        )
    return name or ""


def _pick_text(found: Guess) -> str:
    def rank(one: ColumnFacts) -> tuple[bool, float]:
        return (
            one.distinct > 0.5 * one.filled and one.mean_characters > 15,
            one.mean_characters * _hint(one.name, _TEXT_WORDS),
        )

    others = [one for one in found.facts.values() if one.name != found.target]
    best = max(others, key=rank, default=None)
    if best is None or best.mean_characters < 3:
        raise DataError("no column looks like text", accepted=", ".join(found.facts), remedy="name it with --text")
    return best.name


def _pick_target(found: Guess) -> str:
    def fits(one: ColumnFacts) -> bool:
        return (
            one.name != found.text
            and 2 <= one.distinct <= min(500, max(2, one.filled // 4))
            and one.mean_characters < 60
            and not _names_splits(one)
        )

    fitting = [one for one in found.facts.values() if fits(one)]
    if not fitting:
        raise DataError(
            "no column looks like labels (2 to 500 different short values, each seen several times)",
            accepted=", ".join(found.facts),
            remedy="name it with --target",
        )
    best = max(
        fitting,
        key=lambda one: (not _is_key(one, found), _hint(one.name, _TARGET_WORDS), one.filled, -one.mean_characters),
    )
    if len(fitting) > 1:
        others = ", ".join(one.name for one in fitting if one is not best)
        found.notes.append(f"target is {best.name}; {others} could be one too: choose with --target")
    return best.name


def _names_splits(one: ColumnFacts) -> bool:
    return bool(one.values) and all(_SPLIT.fullmatch(value) for value, _ in one.values)


def _is_key(one: ColumnFacts, found: Guess) -> bool:
    return one.name == _KEY and bool(one.values) and {value for value, _ in one.values} <= set(found.keys)


def _keys(paths: Sequence[Path], options: dict[str, Any]) -> tuple[str, ...]:
    """Returns the keys of a JSON document that has several lists of rows."""
    first = paths[0]
    if first.is_dir() or not (options.get("format") == "json" or first.suffix.lower() == ".json"):
        return ()
    try:
        document = json.loads(first.read_bytes())
    except ValueError:
        return ()
    lists = [key for key, value in document.items() if isinstance(value, list)] if isinstance(document, dict) else []
    return tuple(lists) if len(lists) > 1 else ()


def _refuse_one_class(found: Guess) -> None:
    """Raises DataError for a target that tells nothing apart in all the rows, and notes one that may do so later."""
    target = found.facts[found.target]
    if target.distinct >= 2:
        return
    only = f"one class, {target.values[0][0]!r}," if target.values else "no value"
    if found.rows >= SAMPLE_ROWS:
        found.notes.append(f"target {target.name} has only {only} in the first {found.rows} rows; two are needed")
        return
    raise DataError(
        f"column {target.name!r} has {only} in all {counted(found.rows, 'row')}: there is nothing to tell apart",
        code="one_class",
        field="--target",
        given=target.name,
        remedy="name another column with --target, or add rows of a second class",
    )


def _tell_splits(found: Guess) -> None:
    """Notes what columns are that say where a row stands, so that nobody takes them for labels."""
    for one in found.facts.values():
        values = ", ".join(value for value, _ in one.values[:6]) + (", ..." if one.distinct > 6 else "")
        if _is_key(one, found):
            found.notes.append(f"{one.name} is the key of the document's list in which a row stands: {values}")
        if _names_splits(one) and one.name != found.target:
            named = {value for value, _ in one.values} <= {"train", "validation", "test"}
            way = f"; to keep them: `split: {{by: column, column: {one.name}}}`" if named else ""
            found.notes.append(f"{one.name} names splits, and the spec divides the rows anew{way}")


def _hint(name: str, words: Sequence[str]) -> int:
    low = name.lower()
    return 3 if low in words else 2 if any(word in low for word in words if len(word) > 2) else 1


def _rename(found: Guess) -> None:
    """Gives columns without names of their own the names of what they are."""
    columns = found.options.get("columns")
    if not columns or found.text not in columns or not found.text.startswith("column_"):
        return
    new = {found.text: "text", found.target: "label"}
    found.options["columns"] = [new.get(name, name) for name in columns]
    found.facts = {new.get(name, name): one for name, one in found.facts.items()}
    found.text, found.target = "text", new.get(found.target, found.target)
    found.notes.append("the file has no header: its columns were named by what they look like")
