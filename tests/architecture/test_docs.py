"""Keeps the documentation true: links point somewhere, commands exist, specs are accepted, Python is Python."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from espalier_pipeline.command import app
from espalier_runtime.specs.models import Spec
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "charts").rglob("*.md")),
]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_COMMENT = re.compile(r"\s{2,}#.*$")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Yields page and text of every fenced block of a language; "" is a block that names none."""
    for page in PAGES:
        for found, text in _FENCE.findall(page.read_text(encoding="utf-8")):
            if found == language:
                yield name_of(page), text


def links() -> Iterator[tuple[str, str]]:
    """Yields page and target of every relative link outside fenced blocks."""
    for page in PAGES:
        for target in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
            if not re.match(r"[a-z]+:", target):
                yield name_of(page), target


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yields page and words of every `espalier ...` line of a fenced block."""
    for language in ("", "bash", "sh", "console"):
        for page, text in blocks(language):
            for line in text.replace("\\\n", " ").splitlines():
                words = shlex.split(_COMMENT.sub("", line), comments=False) if "espalier " in line else []
                if words and words[0].rpartition("/")[2] == "espalier":
                    yield page, words[1:]


def headings(page: Path) -> set[str]:
    """Returns the anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def complaint(words: list[str]) -> str | None:
    """Returns what is wrong with a command line, or None: unknown command or option, or too few or many arguments."""
    command, rest = typer.main.get_command(app), list(words)
    while hasattr(command, "commands"):
        if not rest or rest[0] not in command.commands:
            return f"no command {' '.join(words)!r}"
        command = command.commands[rest.pop(0)]
    options = {name: one for one in command.params if one.param_type_name == "option" for name in one.opts}
    given = 0
    while rest:
        word = rest.pop(0)
        name = word.partition("=")[0] if word.startswith("--") else word
        if not word.startswith("-") or word == "-":
            given += 1
        elif name not in options:
            return f"{command.name} has no option {name}"
        elif not getattr(options[name], "is_flag", False) and "=" not in word:
            if not rest:
                return f"{command.name} {name} needs a value"
            rest.pop(0)
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    least = sum(bool(one.required) for one in arguments)
    most = None if any(one.nargs == -1 for one in arguments) else len(arguments)
    if given < least or (most is not None and given > most):
        return f"{command.name} takes {least} to {most} arguments, {given} are given"
    return None


def test_every_relative_link_points_to_something() -> None:
    found = list(links())
    assert len(found) > 20
    broken = []
    for page, target in found:
        path, _, anchor = target.partition("#")
        there = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        if not there.exists() or (anchor and anchor not in headings(there)):
            broken.append(f"{page}: {target}")
    assert not broken


def test_every_command_line_names_a_command_and_options_that_exist() -> None:
    found = list(commands())
    assert len(found) > 30
    assert len({page for page, _ in found}) >= 4
    wrong = [f"{page}: {text}" for page, words in found if (text := complaint(words))]
    assert not wrong


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ran spec.yaml", "no command"),
        ("experiment", "no command"),
        ("run spec.yaml --sett a=b", "no option --sett"),
        ("run spec.yaml --set", "needs a value"),
        ("run", "takes 1 to 1 arguments"),
        ("run spec.yaml other.yaml", "takes 1 to 1 arguments"),
        ("run spec.yaml --json --set a=b", None),
        ("compare one two three", None),
    ],
)
def test_a_wrong_command_line_would_be_noticed(line: str, expected: str | None) -> None:
    said = complaint(shlex.split(line))
    assert said is None if expected is None else expected in (said or "")


def test_every_whole_spec_is_accepted() -> None:
    found = [(page, text) for page, text in blocks("yaml") if re.search(r"^candidates:", text, re.MULTILINE)]
    whole = [(page, text) for page, text in found if re.search(r"^objective:", text, re.MULTILINE)]
    assert len(whole) >= 3
    for page, text in whole:
        spec = Spec.model_validate(YAML(typ="safe", pure=True).load(text))
        assert spec.candidates, page


def test_every_other_block_of_yaml_json_toml_and_python_can_be_read() -> None:
    readers = {
        "yaml": YAML(typ="safe", pure=True).load,
        "json": json.loads,
        "toml": tomllib.loads,
        "python": ast.parse,
    }
    for language, read in readers.items():
        found = list(blocks(language))
        assert found, f"no block of {language}"
        for page, text in found:
            assert read(text) is not None, page


def test_the_pages_that_the_readme_promises_are_there_and_say_what_is_not() -> None:
    pages = [ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
    assert len(pages) >= 4
    for page in pages:
        assert "## What this version does not do" in page.read_text(encoding="utf-8"), page
