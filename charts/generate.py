"""Writes values.schema.json and the table of values in README.md from a chart's values.yaml.

With --check it only compares, and fails where they differ. Run by `make generate` and `make lint`.

Every key has a comment `# -- ...` with what it does; a comment `# @schema {...}` adds JSON schema keywords to the type
that the default shows. Two words are ours: `"open": true` leaves everything below a key to Kubernetes, and
`"values": "other"` makes a map of any names whose values have the keys of the top-level key `other`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

CHARTS = Path(__file__).resolve().parent
BEGIN, END = "<!-- values: made by charts/generate.py -->", "<!-- end of values -->"
SCALARS = {str: "string", bool: "boolean", int: "integer", float: "number"}
_KEY = re.compile(r"^( *)([A-Za-z0-9_./-]+):(?:\s|$)")
_COMMENT = re.compile(r"^ *# ?(.*)$")


@dataclass(frozen=True, slots=True)
class Note:
    """What the comments above a key say."""

    sentence: str
    schema: dict[str, Any]


class Values:
    """A values.yaml with the notes of its keys, by path."""

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        self.data: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
        self.notes = dict(_notes(text))

    def note(self, path: tuple[str, ...]) -> Note:
        """Returns the note of a key; ValueError where it has none."""
        note = self.notes.get(path)
        if note is None or not note.sentence:
            raise ValueError(f"values.yaml: {'.'.join(path)} has no comment `# -- ...`")
        return note

    def is_open(self, path: tuple[str, ...]) -> bool:
        """Returns whether what is below a key has no notes of its own."""
        return bool(self.note(path).schema.get("open"))


def main() -> int:
    """Writes or compares, for every chart; returns 1 where a file is not what the values say."""
    stale = []
    for chart in sorted(path.parent for path in CHARTS.glob("*/Chart.yaml")):
        for path, text in made(chart).items():
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
            elif not path.is_file() or path.read_text(encoding="utf-8") != text:
                stale.append(path)
    for path in stale:
        name = path.relative_to(CHARTS.parent)
        print(f"{name} is not what values.yaml says: run `make generate`", file=sys.stderr)
    return 1 if stale else 0


def made(chart: Path) -> dict[Path, str]:
    """Returns the files that follow from a chart's values, with their text."""
    values = Values(chart / "values.yaml")
    readme = chart / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{readme}: the lines {BEGIN!r} and {END!r} are missing")
    return {
        chart / "values.schema.json": json.dumps(schema(values), indent=1) + "\n",
        readme: f"{before}{BEGIN}\n{table(values)}{END}{after}",
    }


def schema(values: Values) -> dict[str, Any]:
    """Returns the JSON schema; the root also takes `enabled`, which a chart above this one sets."""
    root = _object(values, ())
    root["properties"]["enabled"] = {"type": "boolean", "description": "Read by charts that this one is a part of."}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Made by charts/generate.py", **root}


def table(values: Values) -> str:
    """Returns a Markdown table of every value with its default."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for path, default in _leaves(values, ()):
        note = values.note(path)
        shown = "" if isinstance(default, dict) and default and not note.schema.get("open") else _shown(default)
        rows.append(f"| `{'.'.join(path)}` | {shown} | {note.sentence.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


def _object(values: Values, path: tuple[str, ...]) -> dict[str, Any]:
    node = values.data
    for part in path:
        node = node[part]
    properties = {key: _property(values, (*path, key), node[key]) for key in node}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _property(values: Values, path: tuple[str, ...], default: Any) -> dict[str, Any]:
    note = values.note(path)
    keywords = dict(note.schema)
    described = {"description": note.sentence}
    if keywords.pop("open", False):
        return {**described, "type": "object", **keywords}
    if other := keywords.pop("values", None):
        return {**described, "type": "object", "additionalProperties": _object(values, (other,)), **keywords}
    if isinstance(default, dict):
        return {**described, **_object(values, path), **keywords}
    if isinstance(default, list):
        return {**described, "type": "array", **keywords}
    if type(default) not in SCALARS:
        raise ValueError(f"values.yaml: {'.'.join(path)} has the default {default!r}, from which no type follows")
    return {**described, "type": SCALARS[type(default)], **keywords}


def _leaves(values: Values, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    node = values.data
    for part in path:
        node = node[part]
    for key, value in node.items():
        here = (*path, key)
        yield here, value
        if isinstance(value, dict) and not values.is_open(here) and "values" not in values.note(here).schema:
            yield from _leaves(values, here)


def _shown(default: Any) -> str:
    return f"`{json.dumps(default)}`"


def _notes(text: str) -> Iterator[tuple[tuple[str, ...], Note]]:
    """Yields the note of every key that has one; keys of flow mappings have none."""
    sentence: list[str] = []
    keywords: dict[str, Any] = {}
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        if key := _KEY.match(line):
            indent = len(key[1])
            above = [one for one in above if one[0] < indent] + [(indent, key[2])]
            if sentence or keywords:
                yield tuple(name for _, name in above), Note(" ".join(sentence), keywords)
            sentence, keywords = [], {}
        elif comment := _COMMENT.match(line):
            said = comment[1]
            if said.startswith("-- "):
                sentence = [said[3:].strip()]
            elif said.startswith("@schema "):
                keywords = json.loads(said.removeprefix("@schema "))
            elif sentence:
                sentence.append(said.strip())


if __name__ == "__main__":
    sys.exit(main())
