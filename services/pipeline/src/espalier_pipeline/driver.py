"""The driver: orders the stages of a spec, has them made, and ends with the result.

Holds no state of its own: the store tells what is done, so it can be killed and started again.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espalier_runtime import request as requests
from espalier_runtime.plugins import Plugins
from espalier_runtime.request import StageRequest
from espalier_runtime.specs import Candidate, From, Spec, SpecDocument
from espalier_runtime.specs.reading import candidate_order
from espalier_runtime.specs.space import with_candidate, with_values
from espalier_runtime.specs.writing import write_spec
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef, SpecError
from espalier_sdk.artifacts import digest_of
from espalier_sdk.errors import EspalierError

from espalier_pipeline.children import RayHead, run_child
from espalier_pipeline.curves import learning_curve
from espalier_pipeline.evaluating import evaluate, require_validation
from espalier_pipeline.places import Places
from espalier_pipeline.proposing import propose, require_served
from espalier_pipeline.reading import corpus_requests, load_checked
from espalier_pipeline.records import RunRecord
from espalier_pipeline.result import RunResult as RunResult  # what `run` returns
from espalier_pipeline.staging import Stages
from espalier_pipeline.studies import describe
from espalier_pipeline.view import PlainView, View

STAGES = ("ingest", "preprocess", "base", "train", "evaluate", "serve")


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
    of the stage that failed; whatever was complete is found again by the next call. Where only the endpoint took no
    proposal, the result has it as `refusal`.
    """
    spec, document = load_checked(path, overrides=overrides)
    plugins = Plugins()
    names = _wanted(spec, document, candidate, only)
    corpora = corpus_requests(spec, names, document, plugins)  # a file that is not there leaves no home behind
    places = Places.of(document.path, home=home, store=store)
    opened = Store.open(places.store)
    record = RunRecord.begin(places.runs, name=spec.name, spec=document.path)
    copied = record.folder / "spec.yaml"
    write_spec(spec, copied)  # stages read this copy: an edit of the user's file reaches the next run only
    ray = RayHead(cpus=spec.where.cpus, memory_gib=spec.where.memory_gib, log=record.logs / "ray.log")
    stages = Stages(copied, places, opened, record, view or PlainView(), ray)
    return _recorded(
        _Pipeline(spec, plugins, stages, corpora), names, until=STAGES.index(only) if only else len(STAGES) - 1
    )


def _wanted(spec: Spec, document: SpecDocument, candidate: str | None, only: str | None) -> list[str]:
    """Returns the candidates to build, in order; SpecError where what is asked of them cannot be done."""
    order = candidate_order(spec)
    if candidate is None:
        return order
    if candidate not in spec.candidates:
        raise SpecError(f"there is no candidate {candidate!r}", given=candidate, accepted=", ".join(spec.candidates))
    needed = {candidate}
    for name in reversed(order):
        if name in needed:
            needed |= set(spec.candidates[name].references().values())
    names = [name for name in order if name in needed]
    competing = [name for name in names if spec.candidates[name].competes]
    if only in (None, "evaluate", "serve") and not competing:
        problem = document.problem(
            ("candidates", candidate, "competes"),
            f"candidate {candidate!r} does not compete: with it alone there is nothing to compare",
            code="nothing_competes",
            given=candidate,
            remedy="build it with --only train, or leave --candidate out",
        )
        raise SpecError(problems=(problem,))
    if only in (None, "serve"):
        require_served(spec, document, competing)
    return names


def _recorded(pipeline: _Pipeline, names: Sequence[str], *, until: int) -> RunResult:
    """Runs a pipeline and leaves in its record how that ended."""
    record = pipeline.stages.record
    try:
        result = pipeline.run(names, until=until)
    except KeyboardInterrupt:
        record.update(state="interrupted", finished_at=time.time())
        raise
    except EspalierError as error:
        _record_failure(record, error)
        raise
    except Exception as error:
        log = record.logs / "driver.log"
        log.write_text(traceback.format_exc(), encoding="utf-8")
        told = EspalierError(
            f"{type(error).__name__}: {error}", file=str(log), remedy="a defect: report it with this file"
        )
        _record_failure(record, told)
        raise told from error
    finally:
        pipeline.close()
    if result.refusal is None:
        record.update(state="done", finished_at=time.time(), result=result.document())
    else:
        record.update(result=result.document())
        _record_failure(record, result.refusal)
    return result


def _record_failure(record: RunRecord, error: EspalierError) -> None:
    failures = [problem.to_json() for problem in error.problems]
    record.update(state="failed", finished_at=time.time(), errors=failures, exit_code=error.exit_code)


@dataclass
class _Pipeline:
    """One run at work."""

    spec: Spec
    plugins: Plugins
    stages: Stages
    corpora: Mapping[str, StageRequest]

    def __post_init__(self) -> None:
        self._result = RunResult(record=self.stages.record, spec=self.spec, stages=self.stages.done)
        self._bases: dict[str, ArtifactRef] = {}
        self._settled: dict[str, Spec] = {}  # by candidate: the spec with the values that it was trained with
        self._inputs: dict[str, dict[str, ArtifactRef]] = {}

    def close(self) -> None:
        """Ends the local Ray and the view."""
        self.stages.view.close()
        self.stages.ray.stop()

    def run(self, names: Sequence[str], *, until: int) -> RunResult:
        """Does the stages of some candidates in order, up to one."""
        datasets = self._datasets(names, until)
        if until < STAGES.index("base"):
            return self._result
        competing = [name for name in names if self.spec.candidates[name].competes]
        if until >= STAGES.index("evaluate"):
            require_validation(self.stages.store, {name: datasets[name] for name in competing})
        models = self._train(names, datasets, until)
        if until < STAGES.index("evaluate"):
            return self._result
        compared = {name: models[name] for name in competing}
        evaluate(self._result, self.stages, self.plugins, datasets=datasets, models=compared)
        for name in competing:
            if self.spec.candidates[name].learning_curve:
                self._result.curves.append(
                    learning_curve(self._settled[name], name, self._inputs[name], self.stages, self.plugins)
                )
        self._finish()
        if until >= STAGES.index("serve") and self.spec.serve:
            self._propose(compared)
        return self._result

    def _propose(self, models: Mapping[str, ArtifactRef]) -> None:
        """Proposes last, when the result is on disk: hours of training must not hang on an endpoint's state."""
        assert self._result.verdict is not None, "evaluation chose"
        try:
            self._result.endpoint = propose(self.spec, self._result.verdict, models, self.stages)
        except EspalierError as error:
            self._result.refusal = error

    def _datasets(self, names: Sequence[str], until: int) -> dict[str, ArtifactRef]:
        """Returns the dataset of each candidate; candidates with the same data and task share one."""
        made: dict[str, ArtifactRef] = {}
        found: dict[str, ArtifactRef] = {}
        for name in names:
            one = self.spec.candidates[name]
            data, task = self.spec.data_name(one), self.spec.task_of(one)
            if f"corpus {data}" not in made:
                made[f"corpus {data}"] = self.stages.make(self.corpora[data])
            key = f"{data} {digest_of(task.model_dump(mode='json'))}"
            if until >= STAGES.index("preprocess") and key not in made:
                corpus = made[f"corpus {data}"]
                request = requests.preprocess_request(self.spec, data, task, corpus, self.plugins)
                made[key] = self.stages.make(request, candidate=name)
                self._describe_data(data, corpus, made[key])
            if key in made:
                found[name] = made[key]
        return found

    def _describe_data(self, data: str, corpus: ArtifactRef, dataset: ArtifactRef) -> None:
        """Adds what happened to the rows, as both manifests tell it, and where the unreadable ones lie."""
        metrics = self.stages.metrics(corpus)
        beside = self.stages.store.beside(corpus) if metrics["quarantined"] else None
        quarantine = beside / "quarantine.jsonl" if beside else None
        self._result.data.append(
            {
                "name": data,
                "corpus": str(corpus),
                "dataset": str(dataset),
                "corpus_metrics": metrics,
                "dataset_metrics": self.stages.metrics(dataset),
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
            self._inputs[name], self._settled[name] = inputs, self.spec
            if self.spec.candidates[name].tune:
                models[name] = self._tune(name, inputs)
            else:
                models[name] = self.stages.make(requests.train_request(self.spec, name, inputs, self.plugins))
            if left := self.stages.metrics(models[name])["forgetting"]:
                self._result.forgetting[name] = left
        return models

    def _tune(self, name: str, inputs: Mapping[str, ArtifactRef]) -> ArtifactRef:
        """Returns the model of a candidate's best trial, which its study left in the store."""
        study = self.stages.make(requests.tune_request(self.spec, name, inputs, self.plugins))
        found = describe(self.stages.store, name, study)
        self._result.tuned.append(found)
        best = with_values(self.spec.candidates[name], found["values"])
        settled = self._settled[name] = with_candidate(self.spec, name, best)
        path = self.stages.record.folder / f"spec-{name}.yaml"
        write_spec(settled, path)
        return self.stages.make(requests.train_request(settled, name, inputs, self.plugins), spec=path)

    def _base(self, candidate: Candidate, name: str, models: Mapping[str, ArtifactRef]) -> ArtifactRef | None:
        if isinstance(candidate.base, From):
            return models.get(candidate.base.from_)
        if candidate.base is None:
            return None
        request = requests.base_request(candidate.base, self.plugins)
        if request.digest() not in self._bases:
            self._bases[request.digest()] = self.stages.make(request, candidate=name)
        return self._bases[request.digest()]

    def _finish(self) -> None:
        from espalier_pipeline.report import write_report

        self._result.report = self.stages.record.folder / "report.html"
        tracking = threading.Thread(target=self._track)  # MLflow's imports take seconds: meanwhile the report is drawn
        tracking.start()
        write_report(self._result, self.stages.store, self._result.report)
        tracking.join()

    def _track(self) -> None:
        """Mirrors new artifacts in MLflow; a tracking server that is away spoils no run."""
        new = [stage["ref"] for stage in self._result.stages if stage["ref"] and not stage["cached"]]
        new += [one["model"] for one in self._result.tuned if one["study"] in new]
        if not new:
            return
        places = self.stages.places
        arguments = ["--uri", places.tracking, "--store", places.store, "--experiment", self.spec.name]
        log = self.stages.record.logs / "tracking.log"
        try:
            run_child(
                "espalier_runtime.tracking",
                [*arguments, *new],
                log=log,
                environment={},
                on_event=lambda event: None,
            )
        except EspalierError as error:
            self.stages.view.note(f"not tracked: {error.problems[0]}")
