"""What is done with a candidate beside building it: verify-resume, export, relevance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from espalier_pipeline.commands.printing import (
    Home,
    Json,
    Overrides,
    SpecFile,
    StoreUri,
    command_line,
    print_json,
    print_next,
    shown,
)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (verify_resume, export, relevance):
        app.command()(command)


def verify_resume(
    spec: SpecFile,
    candidate: Annotated[str | None, typer.Option("--candidate", help="Prove just this one.")] = None,
    kills: Annotated[int, typer.Option("--kills", min=1, max=20, help="How often its worker is killed.")] = 2,
    every: Annotated[int, typer.Option("--every", min=1, help="Steps between checkpoints.")] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the moments.")] = 0,
    overrides: Overrides = None,
    as_json: Json = False,
) -> int:
    """Kill training workers at random steps and compare the model with an unbroken run's, bit for bit."""
    from espalier_sdk.errors import TrainingFailed

    from espalier_pipeline.resuming import verify_resume as verify

    proofs = verify(spec, candidate=candidate, kills=kills, every=every, seed=seed, overrides=overrides or ())
    if as_json:
        print_json({"candidates": [proof.document() for proof in proofs]})
    else:
        for proof in proofs:
            told = "the same weights" if proof.equal else f"{proof.broken}, unbroken {proof.unbroken}"
            killed = ", ".join(str(step) for step in proof.killed_at)
            print(f"{proof.candidate:<16} killed at {killed}; went on from step {proof.resumed_at}: {told}")
        print_next(f"espalier run {spec}")
    return 0 if all(proof.equal for proof in proofs) else TrainingFailed.exit_code


def export(
    model: Annotated[str, typer.Argument(help="A model: model/name@<hex>.")],
    folder: Annotated[Path, typer.Argument(help="An empty or new folder.")],
    merged: Annotated[bool, typer.Option("--merged", help="Fold an adapter into its base.")] = False,
    home: Home = None,
    store: StoreUri = None,
    as_json: Json = False,
) -> None:
    """Write a model as a plain Hugging Face folder, and say what opens it."""
    from espalier_pipeline.children import run_child
    from espalier_pipeline.places import Places

    places = Places.of(home=home, store=store)
    arguments = ["--store", places.store, "--model", model, "--out", str(folder.resolve())]
    arguments += ["--merged"] if merged else []
    log = places.home / "export.log"
    done = run_child("espalier_training.export", arguments, log=log, environment={}, on_event=lambda event: None)
    if as_json:
        print_json(done)
        return
    print(shown(folder))
    if done["adapter"]:
        alone = "" if done["opens"] else ", which Espalier alone opens"
        print(f"an adapter on {done['adapter']['base']}{alone}")
    if done["opens"]:
        if scale := done["scale"]:
            print(f"answers in standard deviations: times {scale['deviation']} plus {scale['mean']} is the value")
        print_next(f"{done['opens']} in Python")
    elif done["adapter"]["mergeable"]:
        print_next(command_line("export", model, "DIR", "--merged", home=home, store=store))
    else:
        print_next(command_line("predict", model, "FILE", home=home, store=store))


def relevance(
    model: Annotated[str, typer.Argument(help="A model: model/name@<hex>.")],
    data: Annotated[
        str | None, typer.Option("--data", help="A dataset: dataset/name@<hex>; default: the model's own.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows of the validation split, drawn by seed.")] = 200,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of what is drawn.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Draw it: a page (.html) or a plot (.svg).")] = None,
    home: Home = None,
    store: StoreUri = None,
    as_json: Json = False,
) -> None:
    """Measure which layers, heads and hidden units carry a model's decisions, and check what was measured."""
    from espalier_pipeline.relevance import draw, require_drawable, table
    from espalier_pipeline.relevance import relevance as measure

    if out is not None:
        require_drawable(out)
    found = measure(model, data=data, rows=rows, seed=seed, home=home, store=store)
    if out is not None:
        draw(found, out)
    print_json(found) if as_json else print(table(found))
    if not as_json:
        print_next(command_line("show", model, home=home, store=store) if out is None else f"open {shown(out)}")
