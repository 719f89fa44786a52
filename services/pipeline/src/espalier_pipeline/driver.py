"""The driver: orders the stages of a spec, starts those that are not done yet, chooses, and proposes.

Holds no state of its own: the store tells what is done, so it can be killed and started again.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espalier_runtime import request as requests
from espalier_runtime.plugins import Plugins
from espalier_runtime.request import StageRequest
from espalier_runtime.specs import Candidate, From, Spec, load_spec
from espalier_runtime.specs.checking import check_spec, objective_metric_is_greater_better
from espalier_runtime.specs.reading import candidate_order
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef, SpecError
from espalier_sdk.artifacts import digest_of
from espalier_sdk.errors import EspalierError

from espalier_pipeline.children import RayHead, run_child
from espalier_pipeline.choosing import Standing, Verdict, choose
from espalier_pipeline.places import Places
from espalier_pipeline.records import RunRecord
from espalier_pipeline.view import PlainView, View

STAGES = ("ingest", "preprocess", "base", "train", "evaluate", "serve")
_MODULES = {
    "ingest": "espalier_ingestion",
    "preprocess": "espalier_preprocessing",
    "base": "espalier_training",
    "train": "espalier_training",
    "evaluate": "espalier_evaluation",
}
_WITHOUT_RAY = ("base",)


@dataclass
class RunResult:
    """What a run ends with; `document()` is what `espalier run --json` prints."""

    record: RunRecord
    spec: Spec
    stages: list[dict[str, Any]] = field(default_factory=list)
    candidates: list[dict[str, Any]] = field(default_factory=list)
    baselines: list[dict[str, Any]] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)
    verdict: Verdict | None = None
    openings: int = 0
    report: Path | None = None
    endpoint: dict[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """Returns the JSON document of the run."""
        return {
            "run": self.record.id,
            "name": self.spec.name,
            "stages": self.stages,
            "data": self.data,
            "candidates": self.candidates,
            "baselines": self.baselines,
            "chosen": self.verdict.chosen if self.verdict else None,
            "runner_up": self.verdict.runner_up if self.verdict else None,
            "reason": self.verdict.reason if self.verdict else None,
            "objective": self.objective(),
            "cost": self.spec.objective.cost,
            "test_openings": self.openings,
            "report": str(self.report) if self.report else None,
            "endpoint": self.endpoint,
        }

    def objective(self) -> dict[str, Any] | None:
        """Returns the objective's metric, limits, value (test where it was opened) and whether they are met."""
        if self.verdict is None:
            return None
        goal, chosen = self.spec.objective, next(one for one in self.candidates if one["name"] == self.verdict.chosen)
        split = "test" if chosen["test"] else "validation"
        value = chosen[split][goal.metric]["value"]
        met = (goal.at_least is None or value >= goal.at_least) and (goal.at_most is None or value <= goal.at_most)
        return {
            "metric": goal.metric,
            "at_least": goal.at_least,
            "at_most": goal.at_most,
            "value": value,
            "split": split,
            "met": met,
        }


def run(
    path: Path | str,
    *,
    only: str | None = None,
    candidate: str | None = None,
    overrides: Sequence[str] = (),
    home: Path | None = None,
    store: str | None = None,
    view: View | None = None,
) -> RunResult:
    """Runs a pipeline on this machine and returns what it made.

    `only` ends after that stage; `candidate` builds just that one and those it refers to. Raises the EspalierError
    of the stage that failed; whatever was complete is found again by the next call.
    """
    spec, document = load_spec(Path(path), overrides=overrides)
    plugins = Plugins()
    check_spec(spec, document, plugins)
    if candidate is not None and candidate not in spec.candidates:
        raise SpecError(f"there is no candidate {candidate!r}", given=candidate, accepted=", ".join(spec.candidates))
    places = Places.of(document.path, home=home, store=store)
    opened = Store.open(places.store)
    record = RunRecord.begin(places.runs, name=spec.name, spec=document.path)
    pipeline = _Pipeline(
        spec=spec,
        path=document.path,
        overrides=tuple(overrides),
        plugins=plugins,
        places=places,
        store=opened,
        record=record,
        view=view or PlainView(),
    )
    try:
        result = pipeline.run(only=only, candidate=candidate)
    except KeyboardInterrupt:
        record.update(state="interrupted", finished_at=time.time())
        raise
    except EspalierError as error:
        failures = [problem.to_json() for problem in error.problems]
        record.update(state="failed", finished_at=time.time(), errors=failures, exit_code=error.exit_code)
        raise
    finally:
        pipeline.close()
    record.update(state="done", finished_at=time.time(), result=result.document())
    return result


@dataclass
class _Pipeline:
    """One run at work."""

    spec: Spec
    path: Path
    overrides: tuple[str, ...]
    plugins: Plugins
    places: Places
    store: Store
    record: RunRecord
    view: View

    def __post_init__(self) -> None:
        where = self.spec.where
        self._ray = RayHead(cpus=where.cpus, memory_gib=where.memory_gib, log=self.record.logs / "ray.log")
        self._result = RunResult(record=self.record, spec=self.spec)
        self._bases: dict[str, ArtifactRef] = {}

    def close(self) -> None:
        """Ends the local Ray and the view."""
        self.view.close()
        self._ray.stop()

    def run(self, *, only: str | None, candidate: str | None) -> RunResult:
        """Does the stages in order up to `only`."""
        names = self._wanted(candidate)
        until = STAGES.index(only) if only else len(STAGES) - 1
        datasets = self._datasets(names, until)
        if until < STAGES.index("base"):
            return self._result
        models = self._train(names, datasets, until)
        if until < STAGES.index("evaluate"):
            return self._result
        competing = [name for name in names if self.spec.candidates[name].competes]
        self._evaluate(competing, datasets, models)
        if until >= STAGES.index("serve") and self.spec.serve:
            self._propose(models)
        self._finish()
        return self._result

    def _wanted(self, candidate: str | None) -> list[str]:
        order = candidate_order(self.spec)
        if candidate is None:
            return order
        needed = {candidate}
        for name in reversed(order):
            if name in needed:
                needed |= set(self.spec.candidates[name].references().values())
        return [name for name in order if name in needed]

    def _datasets(self, names: Sequence[str], until: int) -> dict[str, ArtifactRef]:
        """Returns the dataset of each candidate; candidates with the same data and task share one."""
        made: dict[str, ArtifactRef] = {}
        found: dict[str, ArtifactRef] = {}
        for name in names:
            one = self.spec.candidates[name]
            data, task = self.spec.data_name(one), self.spec.task_of(one)
            if f"corpus {data}" not in made:
                made[f"corpus {data}"] = self._stage(requests.ingest_request(self.spec, data, self.plugins), data=data)
            key = f"{data} {digest_of(task.model_dump(mode='json'))}"
            if until >= STAGES.index("preprocess") and key not in made:
                corpus = made[f"corpus {data}"]
                request = requests.preprocess_request(self.spec, data, task, corpus, self.plugins)
                made[key] = self._stage(request, data=data, candidate=name, inputs={"corpus": corpus})
                self._describe_data(data, corpus, made[key])
            if key in made:
                found[name] = made[key]
        return found

    def _describe_data(self, data: str, corpus: ArtifactRef, dataset: ArtifactRef) -> None:
        """Adds what happened to the rows, as both manifests tell it, and where the unreadable ones lie."""
        beside = self.store.beside(corpus)
        quarantine = beside / "quarantine.jsonl" if beside else None
        self._result.data.append(
            {
                "name": data,
                "corpus": str(corpus),
                "dataset": str(dataset),
                "corpus_metrics": self.store.manifest(corpus).metrics,
                "dataset_metrics": self.store.manifest(dataset).metrics,
                "quarantine": str(quarantine) if quarantine and quarantine.is_file() else None,
            }
        )

    def _train(self, names: Sequence[str], datasets: Mapping[str, ArtifactRef], until: int) -> dict[str, ArtifactRef]:
        models: dict[str, ArtifactRef] = {}
        for name in names:
            base = self._base(self.spec.candidates[name], name, models)
            if until < STAGES.index("train"):
                continue
            inputs = {"dataset": datasets[name]} | ({"base": base} if base else {})
            for role, other in self.spec.candidates[name].auxiliaries.items():
                inputs[role] = models[other.from_]
            request = requests.train_request(self.spec, name, inputs, self.plugins)
            models[name] = self._stage(request, candidate=name, inputs=inputs)
        return models

    def _base(self, candidate: Candidate, name: str, models: Mapping[str, ArtifactRef]) -> ArtifactRef | None:
        if isinstance(candidate.base, From):
            return models.get(candidate.base.from_)
        if candidate.base is None:
            return None
        request = requests.base_request(candidate.base, self.plugins)
        if request.digest() not in self._bases:
            self._bases[request.digest()] = self._stage(request, candidate=name)
        return self._bases[request.digest()]

    def _evaluate(
        self, names: Sequence[str], datasets: Mapping[str, ArtifactRef], models: Mapping[str, ArtifactRef]
    ) -> None:
        asked = [self._evaluation(name, "validation", datasets[name], models[name]) for name in names]
        *measured, baselines = self._evaluate_all([*asked, self._evaluation(None, "validation", datasets[names[0]])])
        for name, values in zip(names, measured, strict=True):
            self._result.candidates.append(self._entry(name, models[name], values))
        for name, found in baselines.items():
            told = {"name": name, "validation": found["values"], "train_seconds": found["train_seconds"]}
            self._result.baselines.append(told)
        verdict = self._choose()
        self._result.verdict = verdict
        self.record.update(choice={"chosen": verdict.chosen, "runner_up": verdict.runner_up, "reason": verdict.reason})
        shown = [one for one in self._result.candidates if one["name"] in (verdict.chosen, verdict.runner_up)]
        asked = [self._evaluation(one["name"], "test", datasets[one["name"]], models[one["name"]]) for one in shown]
        for entry, values in zip(shown, self._evaluate_all(asked), strict=True):
            entry["test"] = values["values"]
        opened = [entry["model"] for entry in shown]
        self._result.openings = self._count_opening(str(datasets[verdict.chosen]), opened)

    def _choose(self) -> Verdict:
        """Applies the rule to validation alone."""
        goal = self.spec.objective
        standings = {}
        for entry in self._result.candidates:
            if goal.metric not in entry["validation"]:
                raise SpecError(
                    f"no metric reported {goal.metric!r} for {entry['name']}",
                    field="objective.metric",
                    accepted=", ".join(sorted(entry["validation"])),
                )
            measured = entry["validation"][goal.metric]
            standings[entry["name"]] = Standing(measured["value"], measured["error"] or 0.0, entry[goal.cost])
        return choose(
            standings,
            greater_is_better=objective_metric_is_greater_better(self.spec, self.plugins),
            at_least=goal.at_least,
            at_most=goal.at_most,
        )

    def _evaluation(
        self, name: str | None, split: str, dataset: ArtifactRef, model: ArtifactRef | None = None
    ) -> StageRequest:
        """Returns the request for a candidate's evaluation, or for the baselines'."""
        inputs = {"dataset": dataset} | ({"model": model} if model else {})
        return requests.evaluate_request(
            self.spec, name=name or "baselines", split=split, inputs=inputs, plugins=self.plugins
        )

    def _evaluate_all(self, asked: Sequence[StageRequest]) -> list[dict[str, Any]]:
        """Returns the metrics of evaluations; those not made yet are made by one process, which warms up once."""
        missing = [request for request in asked if self.store.find_request(request.digest()) is None]
        made: dict[str, bool] = {}
        if missing:
            told = [
                {
                    "candidate": one.candidate,
                    "split": one.split,
                    "input": [f"{role}={ref}" for role, ref in one.inputs.items()],
                }
                for one in missing
            ]
            first, *others = told
            arguments = [*self._common("evaluate"), "--split", str(first["split"])]
            arguments += ["--candidate", str(first["candidate"])] if first["candidate"] else []
            for text in first["input"] or ():
                arguments += ["--input", text]
            for other in others:
                arguments += ["--also", json.dumps(other)]
            label = f"{len(missing)} on {first['split']}" if others else missing[0].name
            self.view.stage_began("evaluate", label)
            needs_ray = any("model" in one.inputs for one in missing)
            document = self._attempt(missing[0], arguments, self._ray.environment() if needs_ray else {})
            results = document.get("results", [document])
            made = {one.digest(): bool(result["cached"]) for one, result in zip(missing, results, strict=True)}
        values = []
        for request in asked:
            ref = self.store.find_request(request.digest())
            assert ref is not None, "the service published what it was asked for"
            manifest, cached = self.store.manifest(ref), made.get(request.digest(), True)
            seconds = 0.0 if cached else float(manifest.provenance["seconds"])
            self._note_stage("evaluate", request.name, ref, seconds, cached=cached)
            values.append(dict(manifest.metrics))
        return values

    def _entry(self, name: str, model: ArtifactRef, measured: Mapping[str, Any]) -> dict[str, Any]:
        trained = self.store.manifest(model).metrics
        keys = ("train_seconds", "peak_memory_bytes", "trainable_parameters", "parameters", "size_bytes", "steps")
        return {
            "name": name,
            "model": str(model),
            "validation": measured["values"],
            "validation_rows": measured["rows"],
            "test": None,
            **{key: trained[key] for key in keys},
        }

    def _count_opening(self, dataset: str, models: Sequence[str]) -> int:
        """Counts how often the test split of a dataset was opened: once per set of models that was shown it."""
        path = self.places.home / "test-openings.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        opening = {"dataset": dataset, "models": sorted(models)}
        known = [json.loads(line) for line in lines if line]
        same = [one for one in known if one["dataset"] == dataset]
        if all(one["models"] != opening["models"] for one in same):
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**opening, "run": self.record.id, "at": time.time()}) + "\n")
            return len(same) + 1
        return len(same)

    def _propose(self, models: Mapping[str, ArtifactRef]) -> None:
        serve, verdict = self.spec.serve, self._result.verdict
        assert serve is not None and verdict is not None
        words = {"chosen": verdict.chosen, "runner-up": verdict.runner_up}
        champion = words.get(serve.bootstrap, serve.bootstrap)
        challenger = words.get(serve.challenger, serve.challenger) if serve.challenger else None
        if champion is None or champion == challenger:
            champion, challenger = verdict.chosen, None
        engine = self.spec.evaluate.engine.model_dump(mode="json")
        proposal: dict[str, Any] = {
            "endpoint": serve.endpoint,
            "task": self.spec.task_of(self.spec.candidates[champion]).name,
            "variants": [[name, str(models[name]), engine, {}] for name in (champion, challenger) if name in models],
            "bootstrap": champion,
            "experiment": None,
        }
        if challenger and challenger in models:
            proposal["experiment"] = {
                "control": champion,
                "treatment": challenger,
                "weights": list(serve.weights),
                "coverage": serve.coverage,
                "unit": serve.unit,
            }
        self.view.stage_began("serve", serve.endpoint)
        started = time.monotonic()
        self._result.endpoint = run_child(
            "espalier_serving.propose",
            ["--database", self.places.database, "--proposal", json.dumps(proposal)],
            log=self.record.logs / "serve.log",
            environment={},
            on_event=lambda event: None,
        )
        self._note_stage("serve", serve.endpoint, None, time.monotonic() - started, cached=False)

    def _finish(self) -> None:
        from espalier_pipeline.report import write_report

        self._result.report = self.record.folder / "report.html"
        tracking = threading.Thread(target=self._track)  # MLflow's imports take seconds: meanwhile the report is drawn
        tracking.start()
        write_report(self._result, self.store, self._result.report)
        tracking.join()

    def _track(self) -> None:
        """Mirrors new artifacts in MLflow; a tracking server that is away spoils no run."""
        new = [stage["ref"] for stage in self._result.stages if stage["ref"] and not stage["cached"]]
        if not new:
            return
        arguments = ["--uri", self.places.tracking, "--store", self.places.store, "--experiment", self.spec.name]
        log = self.record.logs / "tracking.log"
        try:
            run_child(
                "espalier_runtime.tracking",
                [*arguments, *new],
                log=log,
                environment={},
                on_event=lambda event: None,
            )
        except EspalierError as error:
            self.view.note(f"not tracked: {error.problems[0]}")

    def _stage(
        self,
        request: StageRequest,
        *,
        inputs: Mapping[str, ArtifactRef] | None = None,
        data: str | None = None,
        candidate: str | None = None,
    ) -> ArtifactRef:
        """Returns the artifact of a request: found in the store, or made by the service's command."""
        started = time.monotonic()
        label = request.name
        found = None if request.read_again else self.store.find_request(request.digest())
        if found is not None:
            self._note_stage(request.stage, label, found, time.monotonic() - started, cached=True)
            return found
        arguments = self._common(request.stage)
        for option, value in (("--data", data), ("--candidate", candidate)):
            arguments += [option, value] if value else []
        for role, ref in (inputs or {}).items():
            arguments += ["--input", f"{role}={ref}"]
        self.view.stage_began(request.stage, label)
        environment = {} if request.stage in _WITHOUT_RAY else self._ray.environment()
        document = self._attempt(request, arguments, environment)
        ref = ArtifactRef.parse(document["ref"])
        self._note_stage(request.stage, label, ref, time.monotonic() - started, cached=bool(document["cached"]))
        return ref

    def _attempt(
        self, request: StageRequest, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> dict[str, Any]:
        """Runs the stage; one that died without a word is tried once more."""
        log = self.record.logs / f"{request.stage}-{request.name}.log"
        for last in (False, True):
            try:
                return run_child(
                    _MODULES[request.stage],
                    arguments,
                    log=log,
                    environment={**environment, "MLFLOW_TRACKING_URI": ""},  # the driver mirrors all of it at the end
                    on_event=self.view.event,
                )
            except EspalierError as error:
                if last or not error.retryable:
                    raise
                self.view.note(f"{request.stage} {request.name}: {error.problems[0].message}; once more")
        raise AssertionError("unreachable")

    def _common(self, stage: str) -> list[str]:
        """Returns what every stage is told."""
        arguments = ["--spec", str(self.path), "--store", self.places.store, "--home", str(self.places.home)]
        for override in self.overrides:
            arguments += ["--set", override]
        return [*arguments, "--stage", stage, "--json"]

    def _note_stage(self, stage: str, label: str, ref: ArtifactRef | None, seconds: float, *, cached: bool) -> None:
        self.view.stage_done(stage, label, seconds, cached=cached)
        entry = {
            "stage": stage,
            "name": label,
            "ref": str(ref) if ref else None,
            "seconds": round(seconds, 2),
            "cached": cached,
        }
        self._result.stages.append(entry)
        self.record.update(stages=self._result.stages)
