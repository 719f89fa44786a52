"""What `plan` says before, between and after runs, and that it leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from espalier_pipeline import forecast
from espalier_pipeline.driver import run
from espalier_pipeline.forecast import plan, render
from espalier_pipeline.view import QuietView
from espalier_runtime.store import Store
from espalier_sdk.errors import ClusterError, SpecError
from espalier_sources import Files


def test_after_a_complete_run_every_stage_is_done(spec: Path, services) -> None:
    run(spec, view=QuietView())
    steps = plan(spec)
    assert [step.name for step in steps if step.ref is None] == ["mails"]  # the proposal
    assert {"tiny-test", "wide-test", "baselines-test"} <= {step.name for step in steps}
    assert "10 of 10 stages are done" in render(steps)


def test_without_a_test_split_none_is_planned(spec: Path, services) -> None:
    services.rows = {"rows_train": 6, "rows_validation": 2, "rows_test": 0}
    run(spec, view=QuietView())
    assert not [step for step in plan(spec) if "test" in step.name]


def test_a_damaged_manifest_is_not_called_done(spec: Path, services) -> None:
    run(spec, view=QuietView())
    (manifest,) = (spec.parent / ".espalier" / "store" / "artifacts" / "dataset").rglob("*.json")
    manifest.write_text(manifest.read_text().replace("mails", "mauls"))
    step = next(step for step in plan(spec) if step.stage == "preprocess")
    assert step.ref is None
    assert "damaged" in step.why


def test_a_source_that_cannot_tell_its_state_is_planned_again(
    spec: Path, services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Files, "fingerprint", lambda self: None)
    run(spec, view=QuietView())
    step = next(step for step in plan(spec) if step.stage == "ingest")
    assert step.ref is None
    assert "read again" in step.why


def test_planning_leaves_nothing_behind(spec: Path, services) -> None:
    before = sorted(spec.parent.rglob("*"))
    assert plan(spec)
    assert sorted(spec.parent.rglob("*")) == before
    assert not list(Store.look(str(spec.parent / "nowhere")).refs())


@pytest.mark.parametrize(("error", "passed_on"), [(SpecError("targets nope"), True), (ClusterError("died"), False)])
def test_what_sizes_find_wrong_with_the_spec_ends_the_plan(
    spec: Path, services, monkeypatch: pytest.MonkeyPatch, error: Exception, passed_on: bool
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(forecast, "run_child", fail)
    if passed_on:
        with pytest.raises(SpecError, match="targets nope"):
            plan(spec)
    else:
        assert plan(spec)


def test_sizes_are_rough_before_the_dataset_is_made(spec: Path, services, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def told(module: str, arguments: list[str], **_: object) -> dict[str, object]:
        asked.append(arguments)
        exact = "--dataset" in arguments
        return {"tiny": {"memory_bytes": None, "trainable_parameters": 148_226, "exact": exact}}

    monkeypatch.setattr(forecast, "run_child", told)
    assert "about 148 k" in render(plan(spec))
    run(spec, view=QuietView())
    shown = render(plan(spec, overrides=["candidates.tiny.training.seed=3"]))
    assert "148 k" in shown and "about 148 k" not in shown
    (given,) = [one for one in asked[-1] if one.startswith("tiny=")]
    assert given.startswith("tiny=dataset/mails@")
