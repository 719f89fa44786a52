"""Predicting: the rows of a file answered by a model of the store."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from espalier_sdk.errors import SpecError

from espalier_pipeline.commands.printing import Home, Json, StoreUri, command_line, print_json, print_next, shown


def predict(
    model: Annotated[str, typer.Argument(help="A model: model/name@<hex>.")],
    file: Annotated[Path, typer.Argument(help="Rows to answer, in any format that `files` reads.")],
    out: Annotated[Path | None, typer.Option("--out", help="JSON lines; default: standard output.")] = None,
    abstain_below: Annotated[
        float | None,
        typer.Option(help="No prediction where the score is lower; the report tells what that brings."),
    ] = None,
    home: Home = None,
    store: StoreUri = None,
    as_json: Json = False,
) -> None:
    """Answer the rows of a file, by the same task and engine as evaluation and serving."""
    from espalier_pipeline.prediction import predict as predict_rows

    if out is not None and out.resolve() == file.resolve():
        raise SpecError("--out is the file that is read", field="--out", given=str(out), remedy="give another file")
    rows = predict_rows(model, file, abstain_below=abstain_below, home=home, store=store)
    if out is not None:
        count = _write(rows, out)
        print_json({"out": str(out), "rows": count}) if as_json else print(shown(out))
    elif as_json:
        print_json({"rows": list(rows)})
    else:
        for row in rows:
            print(_line(row))
    print_next(command_line("show", model, home=home, store=store))


def _write(rows: Iterable[dict[str, Any]], out: Path) -> int:
    """Writes all rows or none: what was there before stays until the last row is answered."""
    from espalier_runtime.store import disk_error

    part, count = out.with_name(f"{out.name}.part"), 0
    try:
        with part.open("w", encoding="utf-8") as stream:
            for row in rows:
                stream.write(_line(row) + "\n")
                count += 1
        part.replace(out)
    except OSError as error:
        raise disk_error(error, str(out)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return count


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=str)
