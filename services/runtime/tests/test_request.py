"""Request digests: another answer has another digest; where and how fast it is made changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from espalier_runtime import arithmetic
from espalier_runtime import request as request_module
from espalier_runtime.plugins import Plugins
from espalier_runtime.request import (
    StageRequest,
    base_request,
    changed,
    evaluate_request,
    ingest_request,
    prepare_request,
    preprocess_request,
    train_request,
)
from espalier_runtime.specs import Spec
from espalier_sdk import ArtifactRef, Choice, PluginUse, SpecError
from espalier_sdk.model import Columns, PeftTraits

SPEC: dict[str, Any] = {
    "name": "triage",
    "objective": {"task": {"name": "classification", "config": {"text": "message"}}, "metric": "macro_f1"},
    "data": {
        "tickets": {
            "sources": [{"name": "files", "config": {"paths": ["/a/tickets.csv"], "delimiter": ","}}],
            "transforms": [{"name": "clean", "config": {"tags": True}}],
            "split": {"test": 0.2},
        }
    },
    "candidates": {
        "lora": {"strategy": "peft", "base": "minilm", "peft": {"name": "lora", "config": {"rank": 8}}},
        "scratch": {"strategy": {"name": "from-scratch", "config": {"layers": 2}}},
    },
}


def _ref(kind: str, name: str, digit: str) -> ArtifactRef:
    return ArtifactRef.parse(f"{kind}/{name}@{digit * 64}")


DATASET, BASE, MODEL, CORPUS = (
    _ref("dataset", "tickets", "1"),
    _ref("model", "base-minilm", "2"),
    _ref("model", "lora", "3"),
    _ref("corpus", "tickets", "4"),
)


@dataclass
class FakePlugins(Plugins):
    """Plugins that say what they are told to."""

    fingerprint: str | None = "f1"
    revision: str = "r1"
    virtual_tokens: int = 0
    hashes: dict[str, str] = field(default_factory=dict)

    def load(self, group: str, choice: Choice) -> Any:
        said = self

        class Plugin:
            def columns(self, task: Any = None) -> Columns:
                answers = {} if choice.name == "policy" else {"answer": "answer"}
                return Columns(required={"message": "text", **answers})

            def fingerprint(self) -> str | None:
                return said.fingerprint

            def revision(self) -> str:
                return said.revision

            def traits(self) -> PeftTraits:
                return PeftTraits(frozenset(), frozenset(), True, True, True, virtual_tokens=said.virtual_tokens)

        return Plugin()

    def use(self, group: str, name: str) -> PluginUse:
        return PluginUse(group=group, name=name, distribution="d", version="1", sha256=self.hashes.get(name, "0"))


@pytest.fixture(autouse=True)
def services(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    hashes: dict[str, str] = {}
    monkeypatch.setattr(request_module, "distribution_use", lambda name: {"d": name, "sha256": hashes.get(name, "0")})
    return hashes


def _set(path: str, value: Any) -> dict[str, Any]:
    def put(node: Any, keys: list[str]) -> Any:
        key: Any = int(keys[0]) if isinstance(node, list) else keys[0]
        copied = list(node) if isinstance(node, list) else dict(node)
        inner = node[key] if isinstance(node, list) else node.get(key, {})
        copied[key] = value if len(keys) == 1 else put(inner, keys[1:])
        return copied

    found: dict[str, Any] = put(SPEC, path.split("."))
    return found


def _make(stage: str, data: dict[str, Any] | None = None, plugins: Any = None, **inputs: ArtifactRef) -> StageRequest:
    spec, plugins = Spec.model_validate(data or SPEC), plugins or FakePlugins()
    if stage == "ingest":
        return ingest_request(spec, "tickets", plugins)
    if stage == "preprocess":
        return preprocess_request(spec, "tickets", spec.objective.task, inputs.get("corpus", CORPUS), plugins)
    if stage == "base":
        return base_request(spec.candidates["lora"].base, plugins)  # type: ignore[arg-type]
    if stage == "prepare":
        return prepare_request(spec, "scratch", inputs.get("dataset", DATASET), None, plugins)
    if stage == "train":
        return train_request(spec, "lora", {"dataset": DATASET, "base": BASE} | inputs, plugins)
    given = {"dataset": DATASET, "model": MODEL} | inputs
    return evaluate_request(spec, name="lora", split="validation", inputs=given, plugins=plugins)


WHAT = [
    ("ingest", "data.tickets.sources.0.config.delimiter", ";", "what.sources"),
    ("ingest", "data.tickets.bad_rows", 0.5, "what.bad_rows"),
    ("preprocess", "data.tickets.transforms.0.config.tags", False, "what.transforms"),
    ("preprocess", "data.tickets.split.salt", "other", "what.split"),
    ("preprocess", "objective.task.config.text", "subject", "what.task"),
    ("prepare", "candidates.scratch.training", {"max_tokens": 64}, "what.max_tokens"),
    ("prepare", "candidates.scratch.strategy.config.layers", 3, "what.strategy"),
    ("prepare", "candidates.scratch.learner", "dpo", "what.learner"),
    ("train", "candidates.lora.peft.config.rank", 4, "what.peft"),
    ("train", "candidates.lora.training", {"epochs": 1}, "what.training"),
    ("train", "candidates.lora.training", {"seed": 1}, "what.training"),
    ("train", "candidates.lora.controls", ["layerwise-lr-decay"], "what.controls"),
    ("train", "candidates.lora.where", {"workers": 2}, "what.world"),
    ("evaluate", "evaluate", {"confidence": 0.9}, "what.confidence"),
    ("evaluate", "evaluate", {"metrics": ["f1"]}, "what.metrics"),
]


@pytest.mark.parametrize(("stage", "path", "value", "named"), WHAT)
def test_each_part_of_what_changes_the_digest_and_is_named(stage: str, path: str, value: Any, named: str) -> None:
    before, after = _make(stage), _make(stage, _set(path, value))
    assert before.digest() != after.digest()
    assert named in changed(before.components(), after.components())


@pytest.mark.parametrize(
    ("stage", "path", "value"),
    [
        *((stage, "where", {"cpus": 1, "memory_gib": 4}) for stage in ("ingest", "preprocess", "prepare", "train")),
        ("train", "candidates.lora.where", {"cpus_per_worker": 1, "gpus_per_worker": 1}),
        ("train", "candidates.lora.where", {"micro_batch_size": 1, "max_failures": 0}),
        ("train", "candidates.lora.competes", True),
        ("train", "name", "another"),
        ("train", "serve", {"endpoint": "support"}),
        ("train", "objective.at_least", 0.9),
        ("ingest", "data.tickets.sources.0.config.paths", ["/elsewhere/tickets.csv"]),
        ("ingest", "data.tickets.transforms", []),
        ("prepare", "candidates.scratch.training", {"epochs": 9, "batch_size": 2}),
    ],
)
def test_where_it_runs_and_where_files_lie_do_not_change_the_digest(
    monkeypatch: pytest.MonkeyPatch, stage: str, path: str, value: Any
) -> None:
    monkeypatch.setattr(arithmetic, "computes_bfloat16", lambda: True)  # as every GPU does: `auto` is the same on both
    assert _make(stage, _set(path, value)).digest() == _make(stage).digest()


def test_content_of_sources_and_revision_of_bases_change_the_digest() -> None:
    for stage, plugins in (("ingest", FakePlugins(fingerprint="f2")), ("base", FakePlugins(revision="r2"))):
        before, after = _make(stage), _make(stage, plugins=plugins)
        assert before.digest() != after.digest()
        assert [name.partition(".")[0] for name in changed(before.components(), after.components())] == ["resolved"]


def test_a_source_that_cannot_tell_its_state_is_pinned_by_as_of() -> None:
    plugins = FakePlugins(fingerprint=None)
    monday, tuesday = (_make("ingest", _set("data.tickets.as_of", day), plugins) for day in ("monday", "tuesday"))
    assert monday.resolved == {"sources[0]": "monday"}
    assert monday.digest() != tuesday.digest()
    assert not monday.read_again
    assert _make("ingest", plugins=plugins).read_again


@pytest.mark.parametrize("stage", ["preprocess", "prepare", "train", "evaluate"])
def test_each_input_changes_the_digest_and_is_named_by_its_role(stage: str) -> None:
    before = _make(stage)
    for role, ref in before.inputs.items():
        other = ArtifactRef(kind=ref.kind, name=ref.name, digest="f" * 64)
        after = _make(stage, **{role: other})
        assert after.digest() != before.digest()
        assert changed(before.components(), after.components()) == [f"inputs.{role}"]


@pytest.mark.parametrize("stage", ["ingest", "preprocess", "base", "prepare", "train", "evaluate"])
def test_each_plugin_by_its_code_changes_the_digest(stage: str) -> None:
    before = _make(stage)
    assert before.plugins
    for use in before.plugins:
        after = _make(stage, plugins=FakePlugins(hashes={use.name: "1"}))
        assert after.digest() != before.digest()
        assert any(use.name in name for name in changed(before.components(), after.components()))


@pytest.mark.parametrize("stage", ["ingest", "preprocess", "base", "prepare", "train", "evaluate"])
def test_the_services_own_code_and_the_runtime_change_the_digest(stage: str, services: dict[str, str]) -> None:
    before = _make(stage)
    digest, components = before.digest(), before.components()
    for name in (before.service, "espalier-runtime", "espalier-sdk"):
        services[name] = "1"
        assert before.digest() != digest
        assert changed(components, before.components())
        del services[name]
    assert before.digest() == digest


def test_major_and_minor_of_libraries_enter_and_patch_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {}
    for text in ("2.8.0", "2.8.1", "2.9.0"):
        monkeypatch.setattr(request_module, "version", lambda name, text=text: text)
        digests[text] = _make("train").digest()
    assert digests["2.8.0"] == digests["2.8.1"] != digests["2.9.0"]


def test_virtual_tokens_leave_the_budget_and_may_not_eat_it() -> None:
    spec = Spec.model_validate(SPEC)
    made = prepare_request(spec, "lora", DATASET, BASE, FakePlugins(virtual_tokens=20))  # type: ignore[arg-type]
    assert made.what["max_tokens"] == 108
    with pytest.raises(SpecError, match=r"lora takes 128 tokens of training\.max_tokens 128") as error:
        prepare_request(spec, "lora", DATASET, BASE, FakePlugins(virtual_tokens=128))  # type: ignore[arg-type]
    assert error.value.problems[0].field == "candidates.lora.training.max_tokens"


def test_candidates_with_equal_choices_share_what_is_prepared() -> None:
    data = _set("candidates.full", {"strategy": "full-finetune", "base": "minilm", "training": {"epochs": 9}})
    spec, plugins = Spec.model_validate(data), FakePlugins()
    digests = {prepare_request(spec, name, DATASET, BASE, plugins).digest() for name in ("lora", "full")}  # type: ignore[arg-type]
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("learners", "competes", "optional"),
    [
        (("policy", "supervised"), True, None),  # the other needs answers, and both have one dataset
        (("policy", "policy"), True, {"answer": ["train"]}),
        (("policy", "policy"), False, {"answer": ["train", "validation", "test"]}),
    ],
)
def test_a_column_that_no_learner_of_the_data_needs_is_optional_where_nothing_is_measured(
    learners: tuple[str, str], competes: bool, optional: dict[str, list[str]] | None
) -> None:
    candidates = {
        name: one | {"learner": learner, "competes": competes}
        for (name, one), learner in zip(SPEC["candidates"].items(), learners, strict=True)
    }
    made = _make("preprocess", SPEC | {"candidates": candidates})
    assert made.what.get("optional") == optional
    assert (made.digest() == _make("preprocess").digest()) == (optional is None)


def test_changed_names_nothing_for_equal_requests() -> None:
    request = _make("train")
    assert changed(request.components(), replace(request).components()) == []


def test_neither_a_secret_nor_a_path_at_any_depth_enters_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_TOKEN", "hush-hush")
    config = {"reading": {"path": "/here/a.csv"}, "key": {"secret": "ACME_TOKEN"}}
    spec = Spec.model_validate(_set("data.tickets.sources.0.config", config))
    components = ingest_request(spec, "tickets", FakePlugins()).components()
    assert components["what"]["sources"][0]["config"] == {"reading": {}, "key": {"secret": "ACME_TOKEN"}}
    assert "hush" not in str(components)
