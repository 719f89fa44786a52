"""How commands print: results on standard output, everything else on standard error, the next command last."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from espalier_sdk.errors import Problem

DRIVEN_VARIABLE = "ESPALIER_DRIVEN"  # set by a program that calls commands and says itself what is next
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Home = Annotated[Path | None, typer.Option("--home", help="Folder of runs, store and databases; default: .espalier.")]
StoreUri = Annotated[str | None, typer.Option("--store", help="Folder or URI of the store; default: HOME/store.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="A namespace with Espalier installed in it.")]
Context = Annotated[str | None, typer.Option("--context", help="With -n: a context of the kubeconfig.")]
SpecFile = Annotated[Path, typer.Argument(help="The spec file.", show_default=False)]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=V", help="Override a value of the spec.")]


def print_json(document: Any) -> None:
    """Prints one JSON document."""
    print(json.dumps(document, indent=1, default=str))


def print_next(command: str) -> None:
    """Prints the next command as the last line of standard error, unless a program drives this one."""
    if not os.environ.get(DRIVEN_VARIABLE):
        print(f"next             {command}", file=sys.stderr)


def command_line(
    *words: object, home: Path | None = None, store: str | None = None, overrides: Sequence[str] | None = None
) -> str:
    """Returns an `espalier` command with the options that this one was given: without them it would look elsewhere."""
    given = [("--home", home), ("--store", store), *(("--set", one) for one in overrides or ())]
    options = [word for option, value in given if value is not None for word in (option, str(value))]
    return shlex.join(["espalier", *map(str, words), *options])


def print_problems(problems: Iterable[Problem]) -> None:
    """Prints errors, a line each, on standard error."""
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)


def shown(path: Path) -> str:
    """Returns a path as short as it can be written from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
