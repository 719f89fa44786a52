"""`plan`: what a run would do, what is done already and why something is not, with time and memory.

Starts no Ray and changes nothing; blueprints are built in a child process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from espalier_runtime import request as requests
from espalier_runtime.plugins import Plugins
from espalier_runtime.request import StageRequest, changed
from espalier_runtime.specs import From, Spec
from espalier_runtime.specs.reading import candidate_order
from espalier_runtime.specs.space import by_share, with_candidate, with_values
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef
from espalier_sdk.artifacts import digest_of
from espalier_sdk.errors import EspalierError, PluginError, SpecError

from espalier_pipeline import tables
from espalier_pipeline.children import run_child
from espalier_pipeline.curves import label
from espalier_pipeline.evaluating import has_rows, verdict_of
from espalier_pipeline.places import Places
from espalier_pipeline.reading import corpus_requests, load_checked

_TRAINED = ("tune", "train")


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a plan."""

    stage: str
    name: str
    ref: str | None
    why: str
    seconds: float | None
    memory_bytes: int | None = None
    trainable_parameters: int | None = None
    exact: bool = False

    def document(self) -> dict[str, Any]:
        """Returns the step for `--json`."""
        return {**asdict(self), "cached": self.ref is not None}


def plan(
    path: Path | str,
    *,
    overrides: Sequence[str] = (),
    home: Path | None = None,
    store: str | None = None,
) -> list[Step]:
    """Returns the steps of a run in their order; raises SpecError or PluginError where the spec cannot be run."""
    spec, document = load_checked(path, overrides=overrides)
    plugins = Plugins()
    corpora = corpus_requests(spec, list(spec.candidates), document, plugins)
    places = Places.of(document.path, home=home, store=store)
    planner = _Planner(spec, plugins, Store.look(places.store), corpora)
    steps = list(planner.steps())
    if all(step.ref for step in steps if step.stage in _TRAINED):
        return steps
    sizes = _sizes(document.path, places.store, overrides, dataset=planner.datasets, model=planner.models)
    return [_with_size(step, sizes.get(step.name)) if step.stage in _TRAINED else step for step in steps]


def render(steps: Sequence[Step]) -> str:
    """Returns the plan as a table with what is left to do below it."""
    rows = [["stage", "name", "", "time", "memory", "trained"]]
    for step in steps:
        done = "done" if step.ref else step.why
        time = "" if step.ref or step.seconds is None else f"about {tables.seconds(step.seconds)}"
        memory = f"about {tables.size(step.memory_bytes)}" if step.memory_bytes and not step.ref else ""
        trained = tables.count(step.trainable_parameters) if step.trainable_parameters and not step.ref else ""
        trained = f"about {trained}" if trained and not step.exact else trained
        rows.append([step.stage, step.name, done, time, memory, trained])
    making = [step for step in steps if step.stage != "propose"]  # proposing leaves nothing in the store to find again
    left = [step for step in making if not step.ref]
    known = [step.seconds for step in left if step.seconds is not None]
    text = f"{len(making) - len(left)} of {len(making)} stages are done"
    if known:
        text += f"; those left took {tables.seconds(sum(known))} when last made"
    return f"{tables.columns(rows)}\n{text}"


class _Planner:
    """Walks the stages as the driver does, without doing any."""

    def __init__(self, spec: Spec, plugins: Plugins, store: Store, corpora: Mapping[str, StageRequest]) -> None:
        self._spec, self._plugins, self._store, self._corpora = spec, plugins, store, corpora
        self._bases: set[str] = set()
        self.datasets: dict[str, ArtifactRef] = {}  # of candidates, where they are made
        self.models: dict[str, ArtifactRef] = {}

    def steps(self) -> Iterator[Step]:
        made: dict[str, ArtifactRef | None] = {}
        models: dict[str, ArtifactRef | None] = {}
        for name in candidate_order(self._spec):
            yield from self._data_steps(name, made)
            yield from self._model_steps(name, made, models)
        self.models = {name: ref for name, ref in models.items() if ref is not None}
        datasets = {name: made[self._dataset_key(name)] for name in models if self._spec.candidates[name].competes}
        measured: dict[str, ArtifactRef] = {}
        for name, dataset in datasets.items():
            step = self._evaluation(name, "validation", {"dataset": dataset, "model": models[name]})
            measured |= {name: ArtifactRef.parse(step.ref)} if step.ref else {}
            yield step
        yield self._evaluation("baselines", "validation", {"dataset": next(iter(datasets.values()))})
        yield from self._test_steps(datasets, models, measured)
        if self._spec.serve:
            yield Step("propose", self._spec.serve.endpoint, None, "again; no change where it is served", None)

    def _dataset_key(self, name: str) -> str:
        candidate = self._spec.candidates[name]
        task = self._spec.task_of(candidate)
        return f"dataset {self._spec.data_name(candidate)} {digest_of(task.model_dump(mode='json'))}"

    def _data_steps(self, name: str, made: dict[str, ArtifactRef | None]) -> Iterator[Step]:
        candidate = self._spec.candidates[name]
        data, task = self._spec.data_name(candidate), self._spec.task_of(candidate)
        corpus_key, dataset_key = f"corpus {data}", self._dataset_key(name)
        if corpus_key not in made:
            step, made[corpus_key] = self._step(self._corpora[data])
            yield step
        if dataset_key not in made:
            corpus = made[corpus_key]
            if corpus is None:
                made[dataset_key] = None
                yield self._waiting("preprocess", "dataset", data, "its corpus is not made yet")
            else:
                request = requests.preprocess_request(self._spec, data, task, corpus, self._plugins)
                step, made[dataset_key] = self._step(request)
                yield step

    def _model_steps(
        self, name: str, made: Mapping[str, ArtifactRef | None], models: dict[str, ArtifactRef | None]
    ) -> Iterator[Step]:
        candidate = self._spec.candidates[name]
        dataset = made[self._dataset_key(name)]
        self.datasets |= {name: dataset} if dataset else {}
        inputs: dict[str, ArtifactRef | None] = {"dataset": dataset}
        if isinstance(candidate.base, From):
            inputs["base"] = models[candidate.base.from_]
        elif candidate.base is not None:
            request = requests.base_request(candidate.base, self._plugins)
            step, inputs["base"] = self._step(request)
            if request.digest() not in self._bases:
                self._bases.add(request.digest())
                yield step
        inputs |= {role: models[other.from_] for role, other in candidate.auxiliaries.items()}
        known = {role: ref for role, ref in inputs.items() if ref is not None}
        if len(known) < len(inputs):
            models[name] = None
            missing = ", ".join(role for role, ref in inputs.items() if ref is None)
            yield self._waiting("train", "model", name, f"its {missing} is not made yet")
            return
        spec = self._spec
        if candidate.tune:
            step, study = self._step(requests.tune_request(spec, name, known, self._plugins))
            yield step
            if study is None:
                models[name] = None
                return
            values = self._store.manifest(study).metrics["values"]
            spec = with_candidate(spec, name, with_values(candidate, values))
        step, models[name] = self._step(requests.train_request(spec, name, known, self._plugins))
        yield step
        if candidate.learning_curve:
            derived = with_candidate(spec, name, by_share(spec.candidates[name]))
            step, _ = self._step(requests.tune_request(derived, name, known, self._plugins))
            yield replace(step, name=label(name))

    def _test_steps(
        self,
        datasets: Mapping[str, ArtifactRef | None],
        models: Mapping[str, ArtifactRef | None],
        measured: Mapping[str, ArtifactRef],
    ) -> Iterator[Step]:
        """Yields the evaluations on test where the choice can be made already, else one step that stands for them."""
        if len(measured) < len(datasets):
            told = "opened for the chosen candidate, the runner-up and the baselines"
            yield Step("evaluate", "test split", None, told, None)
            return
        verdict = verdict_of(
            self._spec, [self._entry(name, models[name], measured[name]) for name in measured], self._plugins
        )
        opened = []
        for name in (verdict.chosen, verdict.runner_up):
            dataset = datasets[name] if name else None
            if name and dataset and has_rows(self._store, dataset, "test"):
                opened.append(dataset)
                yield self._evaluation(name, "test", {"dataset": dataset, "model": models[name]})
        first = next(iter(datasets.values()))
        if first in opened:
            yield self._evaluation("baselines", "test", {"dataset": first})

    def _entry(self, name: str, model: ArtifactRef | None, evaluation: ArtifactRef) -> dict[str, Any]:
        assert model is not None, "an evaluation was made of it"
        cost, metrics = self._spec.objective.cost, self._store.manifest(model).metrics
        return {"name": name, "validation": self._store.manifest(evaluation).metrics["values"], cost: metrics[cost]}

    def _evaluation(self, name: str, split: str, inputs: Mapping[str, ArtifactRef | None]) -> Step:
        known = {role: ref for role, ref in inputs.items() if ref is not None}
        if len(known) < len(inputs):
            return self._waiting("evaluate", "evaluation", f"{name}-{split}", "its model or data is not made yet")
        request = requests.evaluate_request(self._spec, name=name, split=split, inputs=known, plugins=self._plugins)
        return self._step(request)[0]

    def _step(self, request: StageRequest) -> tuple[Step, ArtifactRef | None]:
        ref = self._store.find_request(request.digest())
        before = self._latest(request.kind, request.name)
        if ref is not None and not self._store.verify_manifest(ref):
            why = "its manifest is damaged: `espalier store verify --remove-damaged` first"
            return Step(request.stage, request.name, None, why, None), None
        if ref is not None and not request.read_again:
            return Step(request.stage, request.name, str(ref), "", None), ref
        if before is None:
            return Step(request.stage, request.name, None, "never made", None), None
        if request.read_again:
            why = "read again: its source cannot tell whether it changed (`as_of` would pin it)"
            return Step(request.stage, request.name, None, why, before["seconds"]), None
        differs = changed(before["components"], request.components())
        why = f"changed: {', '.join(differs)}" if differs else "its artifact is gone"
        return Step(request.stage, request.name, None, why, before["seconds"]), None

    def _waiting(self, stage: str, kind: str, name: str, why: str) -> Step:
        before = self._latest(kind, name)
        return Step(stage, name, None, why, before["seconds"] if before else None)

    def _latest(self, kind: str, name: str) -> dict[str, Any] | None:
        """Returns the provenance of the youngest artifact of that name."""
        found = []
        for ref in self._store.refs(kind):
            if ref.name == name and self._store.verify_manifest(ref):
                found.append(self._store.manifest(ref).provenance)
        return max(found, key=lambda provenance: float(provenance["started_at"])) if found else None


def _sizes(
    path: Path, store: str, overrides: Sequence[str], **made: Mapping[str, ArtifactRef]
) -> dict[str, dict[str, Any]]:
    """Asks the training service for the sizes of candidates; raises what it finds wrong with the spec.

    The child gets a store of its own where there is none yet: planning leaves nothing behind.
    """
    with tempfile.TemporaryDirectory() as scratch:
        there = "://" in store or Path(store).is_dir()
        arguments = ["--spec", str(path), "--store", store if there else str(Path(scratch) / "store")]
        for override in overrides:
            arguments += ["--set", override]
        for kind, by_candidate in made.items():
            for name, ref in by_candidate.items():
                arguments += [f"--{kind}", f"{name}={ref}"]
        log = Path(scratch) / "plan.log"
        try:
            return run_child(
                "espalier_training.forecast", arguments, log=log, environment={}, on_event=lambda event: None
            )
        except (SpecError, PluginError):
            raise  # a method that finds nothing to train in its base, for example: no run of it can end well
        except EspalierError:
            return {}  # sizes are a courtesy: what is wrong with the data or the disk, the run itself tells


def _with_size(step: Step, size: Mapping[str, Any] | None) -> Step:
    if size is None:
        return step
    fields = {
        **asdict(step),
        "memory_bytes": size["memory_bytes"],
        "trainable_parameters": size["trainable_parameters"],
        "exact": size["exact"],
    }
    return Step(**fields)
