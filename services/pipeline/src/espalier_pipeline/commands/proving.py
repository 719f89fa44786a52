"""Proving: verify-resume."""

from __future__ import annotations

from typing import Annotated

import typer

from espalier_pipeline.commands.printing import Json, Overrides, SpecFile, print_json, print_next


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(verify_resume)


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
            print(f"{proof.candidate:<16} killed at {killed}; went on from step {proof.resumed_at or 0}: {told}")
        print_next(f"espalier run {spec}")
    return 0 if all(proof.equal for proof in proofs) else TrainingFailed.exit_code
