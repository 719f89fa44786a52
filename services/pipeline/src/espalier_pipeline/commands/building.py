"""Building: new, init, check, plan, schema, run, submit, predict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from espalier_pipeline.commands.printing import Home, Json, Overrides, SpecFile, StoreUri, print_json, print_next, shown


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (new, init, check, plan, schema, run, submit, predict):
        app.command()(command)


def new(
    folder: Annotated[Path, typer.Argument(help="An empty or new folder.")],
    task: Annotated[str, typer.Option("--task", help="What the example answers.")] = "classification",
) -> None:
    """Write a working example: a spec and a little data."""
    from espalier_pipeline.starting import new_example

    spec = new_example(folder, task)
    print(shown(spec))
    print_next(f"espalier run {shown(spec)}")


def init(
    data: Annotated[list[Path], typer.Argument(help="Your own files.")],
    out: Annotated[Path, typer.Option("--out", help="The spec to write.")] = Path("espalier.yaml"),
    text: Annotated[str | None, typer.Option("--text", help="The column that is read.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="The column that is answered.")] = None,
) -> None:
    """Write a commented spec inferred from your own files."""
    from espalier_pipeline.starting import infer_spec

    for line in infer_spec(data, out, text=text, target=target):
        print(line, file=sys.stderr)
    print(shown(out))
    print_next(f"espalier run {shown(out)}")


def check(spec: SpecFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Say everything that is wrong with a spec, or ok."""
    from espalier_pipeline.columns import check_columns
    from espalier_pipeline.reading import check as check_spec

    read = check_spec(spec, overrides=overrides or ())
    check_columns(spec, overrides=overrides or ())
    if as_json:
        print_json({"ok": True, "name": read.name, "candidates": list(read.candidates)})
    else:
        print("ok")
        print_next(f"espalier run {spec}")


def plan(
    spec: SpecFile, overrides: Overrides = None, home: Home = None, store: StoreUri = None, as_json: Json = False
) -> None:
    """List the stages: what is done, what would be done and why, with time and memory."""
    from espalier_pipeline.forecast import plan as plan_spec
    from espalier_pipeline.forecast import render

    steps = plan_spec(spec, overrides=overrides or (), home=home, store=store)
    if as_json:
        print_json({"stages": [step.document() for step in steps]})
    else:
        print(render(steps))
        print_next(f"espalier run {spec}")


def schema() -> None:
    """Print the JSON schema of specs, with the options of every installed plugin."""
    from espalier_pipeline.schema import spec_schema

    print_json(spec_schema())


def run(
    spec: SpecFile,
    only: Annotated[str | None, typer.Option("--only", metavar="STAGE", help="End after this stage.")] = None,
    candidate: Annotated[str | None, typer.Option("--candidate", help="Build just this one.")] = None,
    overrides: Overrides = None,
    home: Home = None,
    store: StoreUri = None,
    as_json: Json = False,
) -> int:
    """Run the pipeline on this machine; what is done already is not repeated."""
    from espalier_sdk.errors import SpecError, ThresholdMissed

    from espalier_pipeline.driver import STAGES
    from espalier_pipeline.driver import run as run_spec
    from espalier_pipeline.tables import render
    from espalier_pipeline.view import view_for

    if only is not None and only not in STAGES:
        raise SpecError(f"--only {only}: no such stage", field="--only", given=only, accepted=", ".join(STAGES))
    result = run_spec(
        spec,
        only=only,
        candidate=candidate,
        overrides=overrides or (),
        home=home,
        store=store,
        view=view_for(sys.stderr.isatty()),
    )
    if as_json:
        print_json(result.document())
    else:
        print(render(result))
        print_next(_next(spec, result.endpoint is not None, home))
    objective = result.objective()
    return ThresholdMissed.exit_code if objective and not objective["met"] else 0


def _next(spec: Path, proposed: bool, home: Path | None) -> str:
    option = f" --home {home}" if home else ""
    return f"espalier serve {spec}{option}" if proposed else f"espalier runs{option}"


def submit(
    spec: SpecFile,
    address: Annotated[str, typer.Option("--address", help="Dashboard of a running Ray cluster, http://host:8265.")],
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow the job.")] = False,
    plugin: Annotated[list[Path] | None, typer.Option("--plugin", help="A plugin's folder, shipped with it.")] = None,
    overrides: Overrides = None,
    store: StoreUri = None,
    as_json: Json = False,
) -> int:
    """Run the pipeline as a job of a Ray cluster; Ctrl-C leaves the job running."""
    from espalier_pipeline.submission import submit as submit_spec

    return submit_spec(
        spec,
        address=address,
        detach=detach,
        plugins=plugin or (),
        overrides=overrides or (),
        store=store,
        as_json=as_json,
    )


def predict(
    model: Annotated[str, typer.Argument(help="A model: model/name@<hex>.")],
    file: Annotated[Path, typer.Argument(help="Rows to answer, in any format that `files` reads.")],
    out: Annotated[Path | None, typer.Option("--out", help="JSON lines; default: standard output.")] = None,
    home: Home = None,
    store: StoreUri = None,
) -> None:
    """Answer the rows of a file, by the same task and engine as evaluation and serving."""
    import json

    from espalier_pipeline.prediction import predict as predict_rows

    rows = predict_rows(model, file, home=home, store=store)
    if out is None:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False, default=str))
        return
    with out.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    print(shown(out))
