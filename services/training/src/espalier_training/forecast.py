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

from espalier_runtime.main import print_errors
from espalier_runtime.plugins import Plugins
from espalier_runtime.request import base_choice, base_request
from espalier_runtime.specs import Candidate, load_spec
from espalier_runtime.store import Store
from espalier_sdk import Head, built_head
from espalier_sdk.errors import EspalierError

# Bytes per weight: float32 weights; gradients and AdamW's two moments for what is trained (Kingma and Ba 2015).
WEIGHT_BYTES, TRAINED_BYTES = 4, 12


def main() -> int:
    """Prints `{candidate: {parameters, trainable_parameters, memory_bytes}}` and returns the exit code."""
    parser = argparse.ArgumentParser(description="Parameters and memory of candidates.")
    parser.add_argument("--spec", required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    try:
        spec, _ = load_spec(Path(arguments.spec), overrides=arguments.set)
        store, plugins = Store.open(arguments.store), Plugins()
        found = {
            name: sizes(candidate, spec.task_of(candidate), store, plugins)
            for name, candidate in spec.candidates.items()
            if base_choice(candidate) is not None
        }
    except EspalierError as error:
        print_errors(error, as_json=True)
        return error.exit_code
    print(json.dumps(found))
    return 0


def sizes(candidate: Candidate, task_choice: Any, store: Store, plugins: Plugins) -> dict[str, int]:
    """Returns the sizes of a candidate that has a base; activations and the libraries themselves come on top."""
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
        head = built_head(learner, Head(kind=plugins.load("espalier.tasks", task_choice).head_kind, outputs=2))
        blueprint = strategy.blueprint(head, tokenizer=folder, base=folder)
    parameters = list(blueprint.parameters)
    if candidate.peft:
        parameters += plugins.load("espalier.peft_methods", candidate.peft).parameters(blueprint)
    total = sum(one.count for one in parameters)
    trained = sum(one.count for one in parameters if strategy.trainable(one))
    memory = WEIGHT_BYTES * total + TRAINED_BYTES * trained
    return {"parameters": total, "trainable_parameters": trained, "memory_bytes": memory}


if __name__ == "__main__":
    sys.exit(main())
