"""Building: new, init, check, plan, schema, run, submit, predict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from espalier_pipeline.commands.predicting import predict
from espalier_pipeline.commands.printing import (
    Context,
    Home,
    Json,
    Namespace,
    Overrides,
    SpecFile,
    StoreUri,
    command_line,
    print_json,
    print_next,
    print_problems,
    shown,
)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (new, init, check, plan, schema, run, submit, predict):
        app.command()(command)


def new(
    folder: Annotated[Path, typer.Argument(help="An empty or new folder.")],
    task: Annotated[str, typer.Option("--task", help="What the example answers.")] = "classification",
    as_json: Json = False,
) -> None:
    """Write a working example: a spec and a little data."""
    from espalier_pipeline.starting import new_example

    spec = new_example(folder, task)
    print_json({"spec": str(spec)}) if as_json else print(shown(spec))
    print_next(command_line("run", shown(spec)))


def init(
    data: Annotated[list[Path], typer.Argument(help="Your own files.")],
    out: Annotated[Path, typer.Option("--out", help="The spec to write.")] = Path("espalier.yaml"),
    text: Annotated[str | None, typer.Option("--text", help="The column that is read.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="The column that is answered.")] = None,
    as_json: Json = False,
) -> None:
    """Write a commented spec inferred from your own files."""
    from espalier_pipeline.starting import infer_spec

    told = infer_spec(data, out, text=text, target=target)
    for line in told:
        print(line, file=sys.stderr)
    print_json({"spec": str(out), "found": told}) if as_json else print(shown(out))
    print_next(command_line("run", shown(out)))


def check(spec: SpecFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Say everything that is wrong with a spec, or ok."""
    from espalier_pipeline.reading import check_with_data

    read, notes = check_with_data(spec, overrides=overrides or ())
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print_json({"ok": True, "name": read.name, "candidates": list(read.candidates), "notes": notes})
    else:
        print("ok")
        print_next(command_line("run", spec, overrides=overrides))


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
        print_next(command_line("run", spec, home=home, store=store, overrides=overrides))


def schema() -> None:
    """Print the JSON schema of specs, with the options of every installed plugin."""
    from espalier_pipeline.schema import spec_schema

    print_json(spec_schema())


def run(
    spec: SpecFile,
    only: Annotated[str | None, typer.Option("--only", metavar="STAGE", help="End after this stage.")] = None,
    candidate: Annotated[str | None, typer.Option("--candidate", help="Build just this one.")] = None,
    from_checkpoint: Annotated[
        Path | None, typer.Option(help="With --candidate: the checkpoint-STEP that its training goes on from.")
    ] = None,
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
    told = list(overrides or ())
    if from_checkpoint is not None:
        if candidate is None:
            raise SpecError("--from-checkpoint is of one training", field="--candidate", remedy="add --candidate NAME")
        told.append(f"candidates.{candidate}.where.from_checkpoint={from_checkpoint.resolve()}")
    result = run_spec(
        spec,
        only=only,
        candidate=candidate,
        overrides=told,
        home=home,
        store=store,
        view=view_for(sys.stderr.isatty()),
    )
    if as_json:
        print_json(result.document())
    else:
        print(render(result))
    if result.refusal:  # the result stands; only its proposal does not
        print_problems(result.refusal.problems)
        return result.refusal.exit_code
    if not as_json:
        print_next(_next(spec, result.record.id, proposed=result.endpoint is not None, home=home, store=store))
    objective = result.objective()
    return ThresholdMissed.exit_code if objective and not objective["met"] else 0


def _next(spec: Path, run_id: str, *, proposed: bool, home: Path | None, store: str | None) -> str:
    if proposed:
        return command_line("serve", spec, home=home, store=store)
    from espalier_pipeline.places import Places

    if home is None and Places.of(spec).home != Places.of().home:
        home = spec.parent / ".espalier"  # where `runs` looks only if it is told so
    return command_line("runs", run_id, home=home)


def submit(
    spec: SpecFile,
    address: Annotated[
        str | None, typer.Option("--address", help="Dashboard of a running Ray cluster, http://host:8265.")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    release: Annotated[str | None, typer.Option("--release", help="With -n: the installation, if several.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow the job.")] = False,
    plugin: Annotated[list[Path] | None, typer.Option("--plugin", help="A plugin's folder, shipped with it.")] = None,
    overrides: Overrides = None,
    store: StoreUri = None,
    as_json: Json = False,
) -> int:
    """Run the pipeline on a Ray cluster or in a Kubernetes namespace; Ctrl-C leaves it running."""
    from espalier_sdk.errors import SpecError

    if (address is None) == (namespace is None):
        raise SpecError(
            "submit where to?",
            field="--address, --namespace",
            accepted="one of them",
            remedy="-n NAMESPACE of a cluster with Espalier in it, or --address of a running Ray",
        )
    if address is not None:
        from espalier_pipeline.submission import submit as submit_to_ray

        return submit_to_ray(
            spec,
            address=address,
            detach=detach,
            plugins=plugin or (),
            overrides=overrides or (),
            store=store,
            as_json=as_json,
        )
    if plugin or store:
        raise SpecError(
            "in a namespace plugins come with the image, and the store with the installation",
            field="--plugin" if plugin else "--store",
            remedy="infra/images/plugins.Dockerfile adds plugins; the chart's values: storage",
        )
    from espalier_pipeline.cluster.submitting import submit as submit_to_namespace

    return submit_to_namespace(
        spec,
        namespace=str(namespace),
        context=context,
        release=release,
        detach=detach,
        overrides=overrides or (),
        as_json=as_json,
    )
