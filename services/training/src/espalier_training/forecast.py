"""`python -m espalier_training.forecast`: parameters and memory of a candidate, from a blueprint without weights.

Runs as a child of `espalier plan`, so that planning itself imports no torch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from espalier_runtime.arithmetic import dtype_of
from espalier_runtime.main import print_errors
from espalier_runtime.plugins import Plugins
from espalier_runtime.request import base_choice, base_request
from espalier_runtime.specs import Candidate, load_spec
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef, Head, built_head, keeps_start
from espalier_sdk.errors import EspalierError

from espalier_training.footprint import PROCESS_BYTES, Load, footprint
from espalier_training.work import require_places

_STATE = "state.json"


def main() -> int:
    """Prints `{candidate: {parameters, trainable_parameters, memory_bytes, exact}}` and returns the exit code.

    Exact are sizes with the head that the dataset asks for; before it is made, a head that chooses has two outputs.
    """
    parser = argparse.ArgumentParser(description="Parameters and memory of candidates.")
    parser.add_argument("--spec", required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--dataset", action="append", default=[], metavar="CANDIDATE=REF")
    arguments = parser.parse_args()
    try:
        spec, _ = load_spec(Path(arguments.spec), overrides=arguments.set)
        store, plugins = Store.open(arguments.store), Plugins()
        datasets = dict(given.split("=", 1) for given in arguments.dataset)
        found = {
            name: sizes(candidate, spec.task_of(candidate), store, plugins, name=name, dataset=datasets.get(name))
            for name, candidate in spec.candidates.items()
            if base_choice(candidate) is not None
        }
    except EspalierError as error:
        print_errors(error, as_json=True)
        return error.exit_code
    print(json.dumps(found))
    return 0


def sizes(
    candidate: Candidate, task_choice: Any, store: Store, plugins: Plugins, *, name: str, dataset: str | None
) -> dict[str, int | None]:
    """Returns the sizes of a candidate that has a base; memory is one worker's, at batches of the longest texts.

    Raises SpecError where those are longer than what the base has positions for.
    """
    choice = base_choice(candidate)
    assert choice is not None, "the caller leaves out candidates without a base"
    request = base_request(choice, plugins)
    ref = store.find_request(request.digest())
    with tempfile.TemporaryDirectory() as scratch:
        folder = store.open_artifact(ref).folder if ref else Path(scratch)
        if ref is None:
            plugins.load("espalier.base_models", choice).fetch(request.resolved["base"], folder)
        strategy = plugins.load("espalier.model_strategies", candidate.strategy)
        learner = plugins.load("espalier.learners", candidate.learner)
        task = plugins.load("espalier.tasks", task_choice)
        head = built_head(learner, _head(task, store, dataset) if dataset else Head(kind=task.head_kind, outputs=2))
        blueprint = strategy.blueprint(head, tokenizer=folder, base=folder)
    require_places(blueprint, candidate.training.max_tokens, candidate=name)
    peft = plugins.load("espalier.peft_methods", candidate.peft) if candidate.peft else None
    parameters = [*blueprint.parameters, *(peft.parameters(blueprint) if peft else ())]
    return {
        "parameters": sum(one.count for one in parameters),
        "trainable_parameters": sum(one.count for one in parameters if strategy.trainable(one)),
        "exact": bool(dataset) or "classification" not in head.kind,
        "memory_bytes": _memory(candidate, blueprint, strategy, peft, reference=keeps_start(learner, peft)),
    }


def _head(task: Any, store: Store, dataset: str) -> Head:
    folder = store.open_artifact(ArtifactRef.parse(dataset), only=_STATE).folder
    state = json.loads((folder / _STATE).read_text(encoding="utf-8"))["task"]
    made: Head = task.head(type(task).State.model_validate(state))
    return made


def _memory(candidate: Candidate, blueprint: Any, strategy: Any, peft: Any, *, reference: bool) -> int | None:
    """Returns the bytes that a worker will need, or None where a PEFT method cannot be followed without weights."""
    where, training = candidate.where, candidate.training
    load = Load(
        rows=where.micro_batch_size or max(1, training.batch_size // where.workers),
        tokens=training.max_tokens - (peft.traits().virtual_tokens if peft else 0),
        dtype=dtype_of(candidate),
        gradient_checkpointing=where.gradient_checkpointing,
        zero_stage=where.zero_stage,
        workers=where.workers,
        gpu=where.gpus_per_worker > 0,
        reference=reference,
    )
    try:
        needed = footprint(blueprint, strategy, peft, load)
    except RuntimeError:  # some look at values when they are put in, and there are none
        return None
    return needed if where.gpus_per_worker else PROCESS_BYTES + needed


if __name__ == "__main__":
    sys.exit(main())
