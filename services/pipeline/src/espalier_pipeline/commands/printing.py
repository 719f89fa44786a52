"""How commands print: results on standard output, everything else on standard error, the next command last."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Home = Annotated[Path | None, typer.Option("--home", help="Folder of runs, store and databases; default: .espalier.")]
StoreUri = Annotated[str | None, typer.Option("--store", help="Folder or URI of the store; default: HOME/store.")]
SpecFile = Annotated[Path, typer.Argument(help="The spec file.", show_default=False)]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=V", help="Override a value of the spec.")]


def print_json(document: Any) -> None:
    """Prints one JSON document."""
    print(json.dumps(document, indent=1, default=str))


def print_next(command: str) -> None:
    """Prints the next command as the last line of standard error."""
    print(f"next             {command}", file=sys.stderr)


def shown(path: Path) -> str:
    """Returns a path as short as it can be written from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
