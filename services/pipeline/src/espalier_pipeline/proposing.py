"""What a run proposes to an endpoint: the chosen model as its first champion, and one to try against it."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from typing import Any

from espalier_runtime.specs import Spec, SpecDocument
from espalier_sdk import ArtifactRef
from espalier_sdk.errors import SpecError

from espalier_pipeline.children import run_child
from espalier_pipeline.choosing import Verdict
from espalier_pipeline.places import DATABASE_VARIABLE
from espalier_pipeline.staging import Stages


def propose(spec: Spec, verdict: Verdict, models: Mapping[str, ArtifactRef], stages: Stages) -> dict[str, Any]:
    """Records the proposals of `serve` in the endpoint's database; Refused where its state forbids them."""
    assert spec.serve is not None, "the driver proposes only where the spec serves"
    stages.view.stage_began("propose", spec.serve.endpoint)
    started = time.monotonic()
    answered = run_child(
        "espalier_serving.propose",
        ["--proposal", json.dumps(proposal(spec, verdict, models))],
        log=stages.record.logs / "serve.log",
        environment={DATABASE_VARIABLE: stages.places.database},
        on_event=lambda event: None,
    )
    stages.note("propose", spec.serve.endpoint, None, time.monotonic() - started, cached=False)
    return answered


def proposal(spec: Spec, verdict: Verdict, models: Mapping[str, ArtifactRef]) -> dict[str, Any]:
    """Returns what the serving service is told; a spec's words stand for the verdict's candidates."""
    serve = spec.serve
    assert serve is not None, "the driver proposes only where the spec serves"
    words = {"chosen": verdict.chosen, "runner-up": verdict.runner_up}
    champion = words.get(serve.bootstrap, serve.bootstrap)
    challenger = words.get(serve.challenger, serve.challenger) if serve.challenger else None
    if champion is None or champion == challenger:
        champion, challenger = verdict.chosen, None
    engine = spec.evaluate.engine.model_dump(mode="json")
    told: dict[str, Any] = {
        "endpoint": serve.endpoint,
        "task": spec.task_of(spec.candidates[champion]).name,
        "variants": [[name, str(models[name]), engine, {}] for name in (champion, challenger) if name in models],
        "bootstrap": champion,
        "experiment": None,
    }
    if challenger:
        told["experiment"] = {
            "control": champion,
            "treatment": challenger,
            "weights": list(serve.weights),
            "coverage": serve.coverage,
            "unit": serve.unit,
        }
    return told


def require_served(spec: Spec, document: SpecDocument, built: Collection[str]) -> None:
    """Raises SpecError where `serve` names a candidate that this run does not build."""
    problems = tuple(
        document.problem(
            ("serve", field),
            f"candidate {value!r} is not built with --candidate {', '.join(built)}",
            code="not_built",
            given=value,
            accepted=", ".join(("chosen", "runner-up", *built)),
            remedy="leave --candidate out, or end before it is served: --only evaluate",
        )
        for field in ("bootstrap", "challenger")
        if spec.serve and (value := getattr(spec.serve, field)) in spec.candidates and value not in built
    )
    if problems:
        raise SpecError(problems=problems)
