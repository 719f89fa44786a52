"""Models as plain Hugging Face folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from espalier_runtime.opening import CARD, open_model
from espalier_sdk import SpecError
from espalier_training.export import export
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from .made import WORDS, Made, adapt, content, make, rows


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch.set_num_threads(1)
    return make(tmp_path_factory.mktemp("export"))


def scores(folder: Path, texts: list[str]) -> torch.Tensor:
    """Returns what transformers alone answers."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(texts, return_tensors="pt", padding=True)
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        return model(**inputs).logits.softmax(-1)


@pytest.mark.parametrize("adapted", [False, True], ids=["whole", "adapter merged"])
def test_transformers_alone_opens_it_and_answers_the_same(made: Made, tmp_path: Path, adapted: bool) -> None:
    store = made.place.store
    ref = adapt(made)[1].ref() if adapted else made.model
    files = export(store.open_artifact(ref), store, tmp_path / "plain", merged=True)
    assert CARD not in files
    assert not [name for name in files if name.startswith("adapter_")]
    asked = rows(6, start=90).select(["message"])
    expected = open_model(store, ref, made.place.plugins).predict(asked).column("scores").to_pylist()
    found = scores(tmp_path / "plain", asked.column("message").to_pylist())
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)
    labels = AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain").config.id2label
    assert list(labels.values()) == sorted(WORDS)


def test_an_adapter_that_is_not_merged_stays_one(made: Made, tmp_path: Path) -> None:
    store = made.place.store
    files = export(store.open_artifact(adapt(made)[1].ref()), store, tmp_path / "adapter", merged=False)
    assert "adapter_model.safetensors" in files
    assert "model.safetensors" not in files


def test_a_folder_that_holds_something_is_refused_and_left_as_it_was(made: Made, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SpecError, match="is not empty"):
        export(made.place.store.open_artifact(made.model), made.place.store, tmp_path, merged=False)
    assert set(content(tmp_path)) == {"mine.txt"}
