"""The main of every service: read and check the spec, open inputs, run one stage, print what was made.

`python -m espalier_training --spec F --store URI --candidate C --input dataset=REF [--json]`
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from espalier_sdk.artifacts import ArtifactRef, Manifest
from espalier_sdk.errors import EXIT_INTERRUPTED, EspalierError, SpecError
from espalier_sdk.groups import did_you_mean

from espalier_runtime.job import Stage, Workplace, perform
from espalier_runtime.parent import PARENT_VARIABLE as PARENT_VARIABLE  # what a service's parent sets
from espalier_runtime.parent import watch_parent
from espalier_runtime.plugins import Plugins
from espalier_runtime.ray_session import ENVIRONMENT, Session
from espalier_runtime.request import (
    StageRequest,
    base_choice,
    base_request,
    evaluate_request,
    ingest_request,
    prepare_request,
    preprocess_request,
    train_request,
    tune_request,
)
from espalier_runtime.specs import Spec, load_spec
from espalier_runtime.specs.checking import check_spec
from espalier_runtime.store import Store

HOME_VARIABLE = "ESPALIER_HOME"


def stage_main(*stages: Stage, argv: Sequence[str] | None = None) -> None:
    """Runs one of a service's stages (the first, unless --stage names another) and exits with its code."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parser(stages).parse_args(given)
    except SpecError as error:
        print_errors(error, as_json="--json" in given)
        sys.exit(error.exit_code)
    sys.exit(run_stage(stages, arguments))


def run_stage(stages: Sequence[Stage], arguments: argparse.Namespace) -> int:
    """Does what the arguments ask; returns the exit code, after printing a reference or the errors."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    watch_parent()
    try:
        done = _run(stages, arguments)
    except EspalierError as error:
        print_errors(error, as_json=arguments.json)
        return error.exit_code
    except KeyboardInterrupt:
        print_errors(EspalierError("interrupted", code="interrupted", retryable=True), as_json=arguments.json)
        return EXIT_INTERRUPTED
    except Exception as error:  # a defect of ours or of a plugin: the log keeps the traceback, the user gets a line
        traceback.print_exc()
        print_errors(EspalierError(f"{type(error).__name__}: {error}"), as_json=arguments.json)
        return 1
    documents = [{"ref": str(one.ref()), "cached": cached, "metrics": one.metrics} for one, cached in done]
    if arguments.json:
        print(json.dumps({"results": documents} if arguments.also else documents[0], default=str))
    else:
        print("\n".join(str(document["ref"]) for document in documents))
    return 0


def print_errors(error: EspalierError, *, as_json: bool) -> None:
    """Prints `{"errors": [...]}` to standard output, or one line each to standard error."""
    if as_json:
        print(json.dumps({"errors": [problem.to_json() for problem in error.problems]}, default=str))
    else:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)


def _run(stages: Sequence[Stage], arguments: argparse.Namespace) -> list[tuple[Manifest, bool]]:
    """Works on the request that the arguments name, and on those of --also, in one process."""
    stage = next(one for one in stages if one.name == (arguments.stage or stages[0].name))
    spec, document = load_spec(Path(arguments.spec), overrides=arguments.set)
    plugins = Plugins()
    check_spec(spec, document, plugins)
    store = Store.open(arguments.store)
    home = Path(arguments.home or os.environ.get(HOME_VARIABLE) or document.path.parent / ".espalier")
    memory = int(spec.where.memory_gib * 2**30) if spec.where.memory_gib else None
    session = Session(cpus=spec.where.cpus, memory_bytes=memory)
    workplace = Workplace(spec, store, home.resolve(), plugins, session)
    done = []
    for one in [arguments, *(_another(arguments, text) for text in arguments.also)]:
        inputs = {role: store.resolve(text) for role, text in _inputs(one.input).items()}
        manifest, cached = perform(build_request(stage.name, spec, one, inputs, plugins), stage.run, workplace)
        _track(arguments.tracking or os.environ.get("MLFLOW_TRACKING_URI"), spec, store, manifest)
        done.append((manifest, cached))
    return done


def _another(arguments: argparse.Namespace, text: str) -> argparse.Namespace:
    """Returns the arguments with what one --also says in place of candidate, data, split and inputs."""
    try:
        said = json.loads(text)
        other = argparse.Namespace(**{**vars(arguments), "candidate": None, "data": None, "input": [], **said})
    except (json.JSONDecodeError, TypeError) as error:
        raise SpecError(f"--also {text}: must be a JSON object", field="--also", given=text) from error
    return other


def _track(uri: str | None, spec: Spec, store: Store, manifest: Manifest) -> None:
    """Mirrors the artifact where that is asked; a tracking server that is away spoils no stage."""
    if not uri:
        return
    from espalier_runtime.tracking import track

    try:
        track(uri, experiment=spec.name, store=store, refs=[str(manifest.ref())])
    except EspalierError as error:
        print(f"not tracked: {error.problems[0]}", file=sys.stderr)


def build_request(
    stage: str, spec: Spec, arguments: argparse.Namespace, inputs: Mapping[str, ArtifactRef], plugins: Plugins
) -> StageRequest:
    """Returns the request that the arguments of a service name."""
    if stage == "ingest":
        return ingest_request(spec, _data(spec, arguments), plugins)
    if stage == "preprocess":
        candidate = spec.candidates[_candidate(spec, arguments)] if arguments.candidate else None
        _need(inputs, "corpus")
        task = spec.task_of(candidate) if candidate else spec.objective.task
        return preprocess_request(spec, _data(spec, arguments), task, inputs["corpus"], plugins)
    if stage == "evaluate":
        _need(inputs, "dataset")
        name = _candidate(spec, arguments) if arguments.candidate else "baselines"
        return evaluate_request(spec, name=name, split=arguments.split, inputs=inputs, plugins=plugins)
    candidate_name = _candidate(spec, arguments)
    if stage == "base":
        base = base_choice(spec.candidates[candidate_name])
        if base is None:
            raise SpecError(f"candidate {candidate_name} has no base of its own", field=f"candidates.{candidate_name}")
        return base_request(base, plugins)
    _need(inputs, "dataset")
    if stage == "prepare":
        return prepare_request(spec, candidate_name, inputs["dataset"], inputs.get("base"), plugins)
    for role in spec.candidates[candidate_name].auxiliaries:
        _need(inputs, role)
    if stage == "tune":
        if spec.candidates[candidate_name].tune is None:
            raise SpecError(f"candidate {candidate_name} is not tuned", field=f"candidates.{candidate_name}.tune")
        return tune_request(spec, candidate_name, inputs, plugins)
    return train_request(spec, candidate_name, inputs, plugins)


def _data(spec: Spec, arguments: argparse.Namespace) -> str:
    name = arguments.data
    if name is None and arguments.candidate:
        name = spec.data_name(spec.candidates[_candidate(spec, arguments)])
    name = name or next(iter(spec.data))
    if name not in spec.data:
        raise SpecError(f"--data {name}: not in the spec", field="--data", given=name, accepted=", ".join(spec.data))
    return str(name)


def _candidate(spec: Spec, arguments: argparse.Namespace) -> str:
    name = arguments.candidate or (next(iter(spec.candidates)) if len(spec.candidates) == 1 else None)
    if name not in spec.candidates:
        raise SpecError(
            f"--candidate {name or ''}: name one of the spec's candidates",
            field="--candidate",
            given=name,
            accepted=", ".join(spec.candidates),
            remedy=did_you_mean(str(name or ""), list(spec.candidates)),
        )
    return str(name)


def _need(inputs: Mapping[str, ArtifactRef], role: str) -> None:
    if role not in inputs:
        raise SpecError(f"--input {role}=REF is missing", field="--input", accepted=f"{role}=kind/name@<hex>")


def _inputs(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for role, sign, ref in pairs:
        if not (role and sign and ref):
            raise SpecError(f"--input {role}{sign}{ref}: must be role=REF", field="--input")
    return {role: ref for role, _, ref in pairs}


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line as every other error of a user."""

    def error(self, message: str) -> NoReturn:
        raise SpecError(message, code="usage", remedy="see --help")


def _parser(stages: Sequence[Stage]) -> argparse.ArgumentParser:
    names = [stage.name for stage in stages]
    parser = _Parser(description=f"Runs a stage of Espalier: {', '.join(names)}.")
    parser.add_argument("--spec", required=True, help="the spec file")
    parser.add_argument("--store", required=True, help="folder or URI of the store")
    parser.add_argument("--stage", choices=names, default=names[0], help="which stage of this service")
    parser.add_argument("--candidate", help="the candidate of the spec")
    parser.add_argument("--data", help="the data of the spec; default: the candidate's, or the first")
    parser.add_argument("--split", choices=["train", "validation", "test"], default="validation", help="to evaluate on")
    parser.add_argument("--input", action="append", default=[], metavar="ROLE=REF", help="an input artifact")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="JSON",
        help='another request of the same stage, in the same process: {"candidate", "split", "input": ["role=REF"]}',
    )
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V", help="override a value of the spec")
    parser.add_argument("--tracking", metavar="URI", help="mirror the artifact in MLflow; default: MLFLOW_TRACKING_URI")
    parser.add_argument("--home", help="folder for locks and runs; default: .espalier beside the spec")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser
