"""A spec file as YAML 1.2: what its scalars are, and where its syntax breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from espalier_runtime.specs import SpecDocument, load_spec
from espalier_sdk.errors import SpecError


def _read(folder: Path, text: str | bytes) -> SpecDocument:
    path = folder / "spec.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return SpecDocument.read(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("5e-5", 5e-5),
        ("0.1", 0.1),
        ("8", 8),
        ("010", 10),
        ("'8'", "8"),
        ("2024-01-31", "2024-01-31"),
        ("12:30", "12:30"),
        ("null", None),
        ("~", None),
        ("&x true", True),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_scalars_are_those_of_yaml_1_2_and_bare(tmp_path: Path, text: str, value: Any) -> None:
    found = _read(tmp_path, f"key: {text}").plain()["key"]
    assert found == value
    assert type(found) is type(value)


def test_an_override_is_read_by_the_same_rules(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("a: {b: 1}\n")
    data = SpecDocument.read(path, overrides=["a.b=no", "a.c=1e-3", "a.d=a=b"]).plain()
    assert data == {"a": {"b": "no", "c": 1e-3, "d": "a=b"}}


def test_places_are_those_of_keys_and_items(tmp_path: Path) -> None:
    document = _read(tmp_path, "a:\n  b:\n    - x\n    - {c: 1,\n       d: 2}\n")
    assert document.place(("a",)) == (1, 1)
    assert document.place(("a", "b")) == (2, 3)
    assert document.place(("a", "b", 1, "d")) == (5, 8)
    assert document.place(("a", "absent", "deep")) == (1, 1)
    assert document.place(("absent",)) == (None, None)


def test_a_merged_key_has_the_place_of_what_holds_it(tmp_path: Path) -> None:
    document = _read(tmp_path, "base: &b {x: 1}\nother:\n  <<: *b\n  y: 2\n")
    assert document.plain()["other"] == {"x": 1, "y": 2}
    assert document.place(("other", "x"))[0] in (1, 2)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [1, 2\nb: 3\n", 2, "is not YAML"),
        ("a: 1\n\tb: 2\n", 2, "is not YAML"),
        ("a: 1\na: 2\n", 2, 'found duplicate key "a"'),
        ("a:\n  b: 1\n  b: 2\n", 3, 'found duplicate key "b"'),
        ("a: *nowhere\n", 1, "undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, "is not YAML"),
        ("a: 'open\n", 2, "is not YAML"),
        ("a: b: c\n", 1, "is not YAML"),
    ],
)
def test_broken_syntax_is_told_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(SpecError) as error:
        _read(tmp_path, text)
    problem = error.value.problems[0]
    assert words in problem.message
    assert (problem.code, problem.line) == ("yaml", line)
    assert problem.column is not None


def test_a_file_that_is_absent_a_folder_or_no_utf8_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(SpecError, match="cannot be read"):
            SpecDocument.read(path)
    with pytest.raises(SpecError, match=r"is not UTF-8 \(byte 3\)"):
        _read(tmp_path, b"a: \xff\xfe")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- a\n", "word\n"])
def test_a_file_without_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match="holds no mapping"):
        load_spec(path)


def test_an_alias_of_itself_and_endless_nesting_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="without end"):
        _read(tmp_path, "&x\na: *x\n").plain()
    with pytest.raises(SpecError):
        _read(tmp_path, "a: " + "[" * 500).plain()
