"""A small spec, and services that answer at once: each publishes what the real one would, with invented figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from espalier_pipeline import children, driver, forecast, proposing, staging
from espalier_runtime.job import Stage
from espalier_runtime.main import _another, _inputs, _parser, build_request
from espalier_runtime.plugins import Plugins
from espalier_runtime.request import StageRequest
from espalier_runtime.specs import load_spec
from espalier_runtime.store import Store
from espalier_sdk import Manifest
from espalier_sdk.errors import EspalierError

SPEC = """\
name: small
objective: {task: {name: classification, config: {text: text, target: label}}, metric: macro_f1}
data:
  mails:
    sources: [{name: files, config: {paths: [mails.csv]}}]
    split: {by: hash, test: 0.2, validation: 0.2}
candidates:
  tiny: {strategy: {name: from-scratch, config: {layers: 1, hidden_size: 32}}}
  wide: {strategy: {name: from-scratch, config: {layers: 1, hidden_size: 64}}}
serve: {endpoint: mails, bootstrap: chosen, challenger: runner-up}
"""
_STAGES = ("ingest", "preprocess", "base", "tune", "train", "evaluate")
_TRIAL = {"losses": [0.7], "models": [], "message": "", "scores": []}
TRIALS = [  # a study's, with the rate searched
    _TRIAL | {"number": 0, "values": {"training.learning_rate": 0.01}, "state": "complete", "score": 0.5},
    _TRIAL | {"number": 1, "values": {"training.learning_rate": 0.02}, "state": "stopped", "score": None},
    _TRIAL | {"number": 2, "values": {"training.learning_rate": 0.03}, "state": "complete", "score": 0.9},
]
_TRAINED = ("train_seconds", "peak_memory_bytes", "trainable_parameters", "parameters", "size_bytes", "steps")

FORGOTTEN = {
    "measure": "similarity",
    "texts": 60,
    "rank_correlation": 0.873,
    "correlation": 0.9,
    "cosine_before": 0.081,
    "cosine_after": 0.4,
}


@dataclass
class FakeServices:
    """Stands for `run_child`: `calls` is what was started, `proposals` what the endpoint was told."""

    refusal: EspalierError | None = None
    rows: dict[str, int] = field(default_factory=lambda: {"rows_train": 6, "rows_validation": 2, "rows_test": 2})
    repeated: dict[str, int] = field(default_factory=dict)
    calls: list[tuple[str, list[str]]] = field(default_factory=list)
    proposals: list[dict[str, Any]] = field(default_factory=list)
    values: dict[str, float] = field(
        default_factory=lambda: {"tiny": 0.9, "wide": 0.8, "more": 0.8, "last": 0.5, "baselines": 0.3}
    )
    unreadable: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    before: Callable[[str], None] = lambda stage: None

    def run_child(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        on_event: Callable[[dict[str, Any]], None],
    ) -> dict[str, Any]:
        self.calls.append((module, list(arguments)))
        if module == "espalier_serving.propose":
            if self.refusal:
                raise self.refusal
            self.proposals.append(json.loads(arguments[-1]))
            return {"endpoint": "mails", "champion": "tiny"}
        if module in ("espalier_runtime.tracking", "espalier_training.forecast"):
            return {}
        given = _parser([Stage(name, run=dict) for name in _STAGES]).parse_args(list(arguments))
        self.before(given.stage)
        spec, _ = load_spec(Path(given.spec), overrides=given.set)
        made = []
        for one in [given, *(_another(given, text) for text in given.also)]:
            store = Store.open(given.store)
            inputs = {role: store.resolve(text) for role, text in _inputs(one.input).items()}
            made.append(self._publish(store, build_request(given.stage, spec, one, inputs, Plugins())))
        told = [{"ref": str(one.ref()), "cached": False, "metrics": one.metrics} for one in made]
        return {"results": told} if given.also else told[0]

    def _publish(self, store: Store, request: StageRequest) -> Manifest:
        attempt = store.begin(request.digest(), reads=request.inputs.values())
        (attempt.folder / "made.txt").write_text(f"{request.stage} {request.name}", encoding="utf-8")
        if request.kind == "corpus":
            (attempt.beside / "quarantine.jsonl").write_text("{}\n" * self.unreadable, encoding="utf-8")
        if request.kind == "study":
            (attempt.folder / "trials.json").write_text(json.dumps(self._trials(store, request)), encoding="utf-8")
        return attempt.publish(
            kind=request.kind,
            name=request.name,
            inputs=tuple(request.inputs.values()),
            what=request.what,
            plugins=request.plugins,
            metrics=self._metrics(request),
            provenance=self._provenance(request),
        )

    def _provenance(self, request: StageRequest) -> dict[str, Any]:
        told = {"request": request.digest(), "components": request.components()}
        return {"seconds": 1.0, "started_at": 1.0, **told}

    def _trials(self, store: Store, request: StageRequest) -> list[dict[str, Any]]:
        shares = request.what["tune"]["space"].get("training.train_share")
        if shares is None:
            return TRIALS
        trials = []
        for number, share in enumerate(shares["choice"]):
            attempt = store.begin(f"{number:064}")
            facts = {"metrics": {"examples": int(100 * share)}, "provenance": self._provenance(request)}
            model = attempt.publish(kind="model", name=request.name, what={"share": share}, **facts).ref()
            told = {"number": number, "values": {"training.train_share": share}, "state": "complete", "score": share}
            trials.append(_TRIAL | told | {"models": [str(model)]})
        return trials

    def _metrics(self, request: StageRequest) -> dict[str, Any]:
        if request.stage == "ingest":
            return {"rows_read": 10, "rows": 10, "quarantined": self.unreadable, "columns": 2}
        if request.stage == "preprocess":
            told = {"dropped": self.dropped, "repeated": self.repeated}
            return {"rows_read": 10, "rows": sum(self.rows.values()), **told, **self.rows}
        if request.stage == "tune":
            states = {"complete": 2, "stopped": 1, "refused": 0, "failed": 0}
            told = {"scored": "macro_f1", "greater_is_better": True, "importance": None, "trials": 3}
            return {"model": "", "best": 2, "values": TRIALS[2]["values"], "score": 0.9, **told, **states}
        if request.stage == "train":
            trained = dict.fromkeys(_TRAINED, 64 if request.candidate == "wide" else 32)
            return trained | {"resumed_at": None, "forgetting": FORGOTTEN if "base" in request.inputs else None}
        value = self.values[request.candidate or "baselines"]
        measured = {"macro_f1": {"value": value, "low": value - 0.05, "high": value + 0.05, "error": 0.02}}
        if request.candidate is None:
            return {"majority": {"rows": 2, "values": measured, "train_seconds": 0.1}}
        return {"rows": 2, "values": measured}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "mails.csv").write_text("text,label\nhello there,a\ngood bye,b\n", encoding="utf-8")
    path = tmp_path / "small.yaml"
    path.write_text(SPEC, encoding="utf-8")
    return path


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> FakeServices:
    fake = FakeServices()
    for module in (children, driver, forecast, proposing, staging):
        monkeypatch.setattr(module, "run_child", fake.run_child)
    monkeypatch.setenv("RAY_ADDRESS", "nobody:1")  # nothing that is faked joins it, and no Ray is started
    return fake
