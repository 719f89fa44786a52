"""The example of a regression with side columns, from files to answers; two of its candidates, and fewer epochs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from espalier_pipeline import predict, run
from espalier_pipeline.command import run as command
from espalier_pipeline.view import QuietView
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef

pytestmark = pytest.mark.heavy
EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "ticket-effort"
SMALL = ["candidates.scratch.training.epochs=4", "candidates.lora.training.epochs=2", "evaluate.resamples=200"]


@pytest.fixture(scope="module")
def made(ray_session: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run of a copy of the example without its slowest candidate, and its document."""
    folder = tmp_path_factory.mktemp("effort") / "ticket-effort"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".espalier"))
    spec = folder / "ticket-effort.yaml"
    lines = spec.read_text(encoding="utf-8").splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("  full:"))
    spec.write_text("\n".join(lines[:start] + lines[start + 4 :]) + "\n", encoding="utf-8")
    return spec, run(spec, overrides=SMALL, view=QuietView()).document()


def value(one: dict[str, Any], metric: str) -> float:
    found: float = one["validation"][metric]["value"]
    return found


def test_models_learn_from_text_and_side_columns_and_beat_the_mean(made) -> None:
    _, document = made
    assert {one["name"] for one in document["candidates"]} == {"scratch", "lora"}
    mean = next(one for one in document["baselines"] if one["name"] == "mean")
    best = min(document["candidates"], key=lambda one: value(one, "mae"))
    assert value(best, "mae") < 0.85 * value(mean, "mae")
    assert value(best, "spearman") > 0.4


def test_the_choice_and_the_tables_know_that_less_is_better(made) -> None:
    _, document = made
    order = [value(one, "mae") for one in document["candidates"]]
    assert order == sorted(order)
    ridge, mean = document["baselines"]
    assert value(ridge, "mae") < value(mean, "mae")
    if document["reason"].startswith("best"):
        assert value(next(one for one in document["candidates"] if one["name"] == document["chosen"]), "mae") == min(
            value(one, "mae") for one in document["candidates"]
        )
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert "answers against targets" in page
    assert f"Where {document['chosen']} is furthest off" in page


def test_the_vector_is_in_the_data_and_what_it_is_made_of_travels_with_the_model(made) -> None:
    spec, document = made
    store = Store.open(str(spec.parent / ".espalier" / "store"))
    (data,) = document["data"]
    folder = store.open_artifact(ArtifactRef.parse(data["dataset"])).folder
    widths = {
        len(row) for part in (folder / "train").glob("*.parquet") for row in pq.read_table(part)["side"].to_pylist()
    }
    (width,) = widths
    for one in document["candidates"]:
        card = json.loads(
            (store.open_artifact(ArtifactRef.parse(one["model"])).folder / "espalier.json").read_text(encoding="utf-8")
        )
        assert card["head"]["side_width"] == width
        assert [each["name"] for each in card["transforms"]] == ["clean", "encode"]


def test_each_model_answers_questions_with_and_without_side_columns(made) -> None:
    spec, document = made
    for one in document["candidates"]:
        rows = list(predict(one["model"], spec.parent / "new.jsonl", home=spec.parent / ".espalier"))
        assert len(rows) == 3
        assert rows[0]["prediction"] > rows[1]["prediction"] + 3  # lost documents, and a question about a setting
        assert rows[2]["product"] == "robots"


def test_an_exported_model_opens_with_its_head_and_reads_side_columns(made, tmp_path: Path) -> None:
    import torch
    from espalier_sdk.heads import load_model
    from espalier_sdk.model import Head

    spec, document = made
    store = Store.open(str(spec.parent / ".espalier" / "store"))
    for one in document["candidates"]:
        out = tmp_path / one["name"]
        home = ["--home", str(spec.parent / ".espalier")]
        assert command(["export", one["model"], str(out), "--merged", *home]) == 0
        folder = store.open_artifact(ArtifactRef.parse(one["model"])).folder
        card = json.loads((folder / "espalier.json").read_text(encoding="utf-8"))
        model = load_model(out, Head(**card["head"])).eval()
        side = torch.zeros(1, card["head"]["side_width"])
        with torch.no_grad():
            near, far = (
                float(model(input_ids=torch.tensor([[2, 40, 41, 3]]), side=side + add).logits) for add in (0, 1)
            )
        assert near != far
