"""The bundled base: real weights, found without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from espalier_base_minilm import MiniLM, minilm
from espalier_sdk import DataError
from espalier_sdk.testing import check_base_model


def test_minilm_passes_its_kit_and_knows_what_words_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = check_base_model("minilm", refused=[{"size": "large"}])
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (6, 384)
    # 22.7 million weights, as the model's card says.
    assert sum(value.numel() for value in model.parameters()) == 22_713_216
    near, far = _likeness(model, "The parcel is late.", ["My delivery has not arrived.", "Bake the bread for an hour."])
    assert near > 0.5 > far  # random weights give equal figures


def _likeness(model: object, text: str, others: list[str]) -> list[float]:
    """Returns the cosine between mean token vectors, as sentence-transformers pools this model."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(_folder())
    encoded = tokenizer([text, *others], padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**encoded).last_hidden_state  # type: ignore[operator]
    mask = encoded["attention_mask"].unsqueeze(-1)
    vectors = (states * mask).sum(dim=1) / mask.sum(dim=1)
    return [float(torch.cosine_similarity(vectors[0], other, dim=0)) for other in vectors[1:]]


def _folder() -> Path:
    return minilm._installed()[1]["tokenizer.json"][0].parent


def test_revision_names_version_and_content() -> None:
    version, _, digest = MiniLM(MiniLM.Config()).revision().partition("-")
    assert version.count(".") == 2
    assert len(digest) == 32


def test_absent_package_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "_DISTRIBUTION", "no-such-distribution-of-weights")
    with pytest.raises(DataError, match="install no-such-distribution-of-weights"):
        MiniLM(MiniLM.Config()).revision()


def test_package_without_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "_FOLDER", "another_folder/")
    with pytest.raises(DataError, match="holds no model"):
        MiniLM(MiniLM.Config()).revision()
