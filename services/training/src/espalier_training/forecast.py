"""`python -m espalier_training.forecast`: parameters and memory of a candidate, from a blueprint without weights.

Runs as a child of `espalier plan`, so that planning itself imports no torch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espalier_runtime.arithmetic import dtype_of
from espalier_runtime.main import print_errors
from espalier_runtime.plugins import Plugins
from espalier_runtime.request import base_choice, base_request
from espalier_runtime.specs import Candidate, From, Spec, load_spec
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef, Blueprint, Choice, Head, built_head, keeps_start
from espalier_sdk.errors import EspalierError

from espalier_training.footprint import PROCESS_BYTES, Load, footprint
from espalier_training.work import require_places

_STATE, _TOKENIZER = "state.json", ("tokenizer.json", "tokenizer_config.json")
_FLOAT = 4


def main() -> int:
    """Prints `{candidate: {parameters, trainable_parameters, memory_bytes, exact}}` and returns the exit code.

    Exact are sizes with the head that the dataset asks for and the vocabulary that its texts gave; before they are
    made, a head that chooses has two outputs, and a vocabulary is as large as it may become.
    """
    parser = argparse.ArgumentParser(description="Parameters and memory of candidates.")
    parser.add_argument("--spec", required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--dataset", action="append", default=[], metavar="CANDIDATE=REF")
    parser.add_argument("--model", action="append", default=[], metavar="CANDIDATE=REF")
    arguments = parser.parse_args()
    try:
        spec, _ = load_spec(Path(arguments.spec), overrides=arguments.set)
        made = {"datasets": _refs(arguments.dataset), "models": _refs(arguments.model)}
        with tempfile.TemporaryDirectory() as scratch:
            forecast = Forecast(spec, Store.open(arguments.store), scratch=Path(scratch), **made)
            found = {name: forecast.sizes(name) for name in spec.candidates}
    except EspalierError as error:
        print_errors(error, as_json=True)
        return error.exit_code
    print(json.dumps(found))
    return 0


def _refs(given: Sequence[str]) -> dict[str, ArtifactRef]:
    return {name: ArtifactRef.parse(ref) for name, ref in (one.split("=", 1) for one in given)}


class Forecast:
    """Looks at the candidates of one spec; datasets and models by candidate, where they are made already.

    Bases that the store does not have are fetched into `scratch`, each once.
    """

    def __init__(
        self,
        spec: Spec,
        store: Store,
        *,
        scratch: Path,
        datasets: Mapping[str, ArtifactRef],
        models: Mapping[str, ArtifactRef],
    ) -> None:
        self._spec, self._store, self._plugins, self._scratch = spec, store, Plugins(), scratch
        self._datasets, self._models = datasets, models
        self._blueprints: dict[str, Blueprint] = {}

    def sizes(self, name: str) -> dict[str, Any]:
        """Returns the sizes of a candidate; memory is one worker's, at batches of the longest texts.

        Raises SpecError where those are longer than what the model has positions for.
        """
        candidate, strategy, blueprint = self._spec.candidates[name], self._strategy(name), self._blueprint(name)
        peft = self._plugins.load("espalier.peft_methods", candidate.peft) if candidate.peft else None
        require_places(blueprint, candidate.training.max_tokens, candidate=name)
        parameters = [*blueprint.parameters, *(peft.parameters(blueprint) if peft else ())]
        first = self._first(name)
        known_head = name in self._datasets or "classification" not in blueprint.head.kind
        known_vocabulary = first in self._models or base_choice(self._spec.candidates[first]) is not None
        return {
            "parameters": sum(one.count for one in parameters),
            "trainable_parameters": sum(one.count for one in parameters if strategy.trainable(one)),
            "exact": known_head and known_vocabulary,
            "memory_bytes": self._memory(candidate, blueprint, strategy, peft),
        }

    def _first(self, name: str) -> str:
        """Returns the candidate that this one goes on from, over all between: the first of its chain."""
        while isinstance(base := self._spec.candidates[name].base, From):
            name = base.from_
        return name

    def _strategy(self, name: str) -> Any:
        return self._plugins.load("espalier.model_strategies", self._spec.candidates[name].strategy)

    def _blueprint(self, name: str) -> Blueprint:
        """Returns what a candidate builds, on the weights that the first model of its chain has or will have."""
        if name not in self._blueprints:
            self._blueprints[name] = self._looked_at(name)
        return self._blueprints[name]

    def _looked_at(self, name: str) -> Blueprint:
        candidate, start = self._spec.candidates[name], self._first(name)
        task = self._plugins.load("espalier.tasks", self._spec.task_of(candidate))
        learner = self._plugins.load("espalier.learners", candidate.learner)
        head = built_head(learner, self._head(task, name))
        if (choice := base_choice(self._spec.candidates[start])) is not None:
            tokenizer = base = self._fetched(choice)
        elif start == name:
            tokenizer, base = self._own_tokenizer(name), None
        else:
            tokenizer = base = _hollow(self._blueprint(start), self._scratch / start)
        found: Blueprint = self._strategy(name).blueprint(head, tokenizer=tokenizer, base=base)
        return found

    def _own_tokenizer(self, name: str) -> Path | None:
        """Returns a folder with the tokenizer that a model was made with, where it is made."""
        folder = None
        if made := self._models.get(name):
            for file in _TOKENIZER:
                folder = self._store.open_artifact(made, only=file).folder
        return folder

    def _fetched(self, choice: Choice) -> Path:
        request = base_request(choice, self._plugins)
        if ref := self._store.find_request(request.digest()):
            return self._store.open_artifact(ref).folder
        folder = self._scratch / request.digest()
        if not folder.exists():
            folder.mkdir()
            self._plugins.load("espalier.base_models", choice).fetch(request.resolved["base"], folder)
        return folder

    def _head(self, task: Any, name: str) -> Head:
        if (dataset := self._datasets.get(name)) is None:
            return Head(kind=task.head_kind, outputs=2)
        folder = self._store.open_artifact(dataset, only=_STATE).folder
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))["task"]
        made: Head = task.head(type(task).State.model_validate(state))
        return made

    def _memory(self, candidate: Candidate, blueprint: Blueprint, strategy: Any, peft: Any) -> int | None:
        """Returns the bytes that a worker will need, or None where a PEFT method cannot be followed without weights.

        Frozen models beside the own one are float32: the start that the learner compares with, and those that it asks.
        """
        learner = self._plugins.load("espalier.learners", candidate.learner)
        beside = [self._blueprint(other.from_) for other in candidate.auxiliaries.values()]
        beside += [blueprint] if keeps_start(learner, peft) else []
        where, training = candidate.where, candidate.training
        rows = where.micro_batch_size or max(1, training.batch_size // where.workers)
        load = Load(
            rows=rows * getattr(learner, "sequences", 1),
            tokens=training.max_tokens - (peft.traits().virtual_tokens if peft else 0),
            dtype=dtype_of(candidate),
            gradient_checkpointing=where.gradient_checkpointing,
            zero_stage=where.zero_stage,
            workers=where.workers,
            gpu=where.gpus_per_worker > 0,
            loss_bytes=getattr(learner, "loss_bytes", None),
            beside=_FLOAT * sum(one.count for other in beside for one in other.parameters),
        )
        try:
            needed = footprint(blueprint, strategy, peft, load)
        except RuntimeError:  # a method of another's may look at values, and there are none
            return None
        return needed if where.gpus_per_worker else PROCESS_BYTES + needed


def _hollow(blueprint: Blueprint, folder: Path) -> Path:
    """Writes a Hugging Face folder with a model's configuration and shapes: its weights are a hole in the file."""
    header: dict[str, Any] = {}
    end = 0
    for one in blueprint.parameters:
        start, end = end, end + _FLOAT * one.count
        header[one.name] = {"dtype": "F32", "shape": list(one.shape), "data_offsets": [start, end]}
    told = json.dumps(header).encode()
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(blueprint.config)), encoding="utf-8")
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(told).to_bytes(8, "little") + told)
        file.truncate(file.tell() + end)
    return folder


if __name__ == "__main__":
    sys.exit(main())
