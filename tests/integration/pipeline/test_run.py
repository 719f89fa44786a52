"""A whole run: what it ends with, what it repeats, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from espalier_pipeline import plan, predict, run
from espalier_pipeline.command import run as command
from espalier_pipeline.view import QuietView
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef
from espalier_sdk.errors import DataError

from .conftest import write_small


@pytest.fixture(scope="module")
def made(ray_session: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run: its spec and the document that `--json` prints."""
    spec = write_small(tmp_path_factory.mktemp("made"))
    return spec, run(spec, view=QuietView()).document()


def test_the_document_holds_stages_candidates_and_the_choice(made) -> None:
    _, document = made
    assert {stage["stage"] for stage in document["stages"]} == {"ingest", "preprocess", "train", "evaluate", "propose"}
    for stage in document["stages"]:
        assert stage["seconds"] >= 0
        assert stage["cached"] in (False, True)
    by_name = {one["name"]: one for one in document["candidates"]}
    assert set(by_name) == {"tiny", "wide"}
    assert document["chosen"] in by_name
    for one in by_name.values():
        measured = one["validation"]["macro_f1"]
        assert measured["low"] <= measured["value"] <= measured["high"]
        assert one["trainable_parameters"] == one["parameters"] > 10_000
        assert one["peak_memory_bytes"] > 50e6
        ArtifactRef.parse(one["model"])
    assert {one["name"] for one in document["baselines"]} == {"tf-idf-linear", "majority"}
    assert document["endpoint"]["endpoint"] == "mails"


def test_words_that_tell_the_label_are_learned_and_beat_the_majority(made) -> None:
    _, document = made
    majority = next(one for one in document["baselines"] if one["name"] == "majority")
    best = max(one["validation"]["macro_f1"]["value"] for one in document["candidates"])
    assert best > majority["validation"]["macro_f1"]["value"] + 0.3


def test_the_report_is_one_page_that_needs_no_network(made) -> None:
    _, document = made
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert page.count("<svg") >= 4
    assert "src=" not in page
    assert "<link" not in page
    assert document["chosen"] in page


def test_the_same_spec_again_repeats_nothing_and_starts_no_ray(made) -> None:
    spec, before = made
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    line = [sys.executable, "-m", "espalier_pipeline.command", "run", str(spec), "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=bare)
    document = json.loads(done.stdout)
    assert all(stage["cached"] for stage in document["stages"] if stage["stage"] != "propose")
    assert {stage["ref"] for stage in document["stages"]} == {stage["ref"] for stage in before["stages"]}
    assert document["test_openings"] == before["test_openings"] == 1
    logs = spec.parent / ".espalier" / "runs" / document["run"] / "logs"
    assert not (logs / "ray.log").exists()


def test_a_changed_candidate_is_the_only_one_that_is_made_again(made) -> None:
    spec, _ = made
    steps = plan(spec, overrides=["candidates.tiny.training.epochs=3"])
    todo = {step.name: step.why for step in steps if step.ref is None and step.stage == "train"}
    assert todo == {"tiny": "changed: what.training"}


def test_a_model_answers_the_rows_of_a_file(made, tmp_path: Path) -> None:
    spec, document = made
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"text": "rose spade seeds"}\n{"text": "invoice refund card"}\n', encoding="utf-8")
    rows = list(predict(document["candidates"][0]["model"], asked, home=spec.parent / ".espalier"))
    assert [row["text"] for row in rows] == ["rose spade seeds", "invoice refund card"]
    assert all(0 < row["score"] <= 1 for row in rows)


def test_runs_show_compare_and_logs_tell_what_happened(made, capsys) -> None:
    spec, document = made
    home = ["--home", str(spec.parent / ".espalier")]
    for arguments in (["runs"], ["runs", document["run"]], ["compare", document["run"], document["run"]]):
        assert command([*arguments, *home]) == 0
        assert document["run"] in capsys.readouterr().out
    model = document["candidates"][0]["model"]
    assert command(["show", model[: model.index("@") + 9], *home]) == 0
    assert model in capsys.readouterr().out
    assert command(["logs", document["run"], "train-tiny", *home]) == 0
    assert command(["logs", document["run"], "nothing", *home]) == 2


def test_a_flipped_byte_is_found_named_and_mended_by_another_run(made, tmp_path: Path) -> None:
    spec, document = made
    shutil.copytree(spec.parent, tmp_path / "copy")
    spec, home = tmp_path / "copy" / spec.name, tmp_path / "copy" / ".espalier"
    ref = next(one["model"] for one in document["candidates"] if one["name"] == "tiny")
    store = Store.open(str(home / "store"))
    weights = store.open_artifact(ArtifactRef.parse(ref)).folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DataError, match=r"model\.safetensors differs from the manifest"):
        run(spec, overrides=["evaluate.seed=1"], view=QuietView())  # opens the models again
    assert command(["store", "verify", "--remove-damaged", "--home", str(home)]) == 0
    again = run(spec, only="train", candidate="tiny", view=QuietView())
    trained = [(stage["ref"], stage["cached"]) for stage in again.stages if stage["stage"] == "train"]
    assert trained == [(ref, False)]  # mended, and nothing is built but the one candidate


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda text: text.replace("garden", "money"), 4, "class"),
        (lambda text: "text,label\n", 4, "mails.csv"),
        (lambda text: text.replace("money", "").replace("garden", ""), 4, "target"),
    ],
    ids=["one class only", "an empty file", "no target left"],
)
def test_data_that_cannot_be_learned_from_end_with_one_clear_error(
    small: Path, ray_session, capsys, change, code: int, words: str
) -> None:
    data = small.parent / "mails.csv"
    data.write_text(change(data.read_text(encoding="utf-8")), encoding="utf-8")
    assert command(["run", str(small), "--only", "preprocess"]) == code
    printed = capsys.readouterr()
    assert words in printed.err
    assert "Traceback" not in printed.err
