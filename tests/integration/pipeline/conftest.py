"""What the pipeline's integration tests share: a small spec whose stages take seconds."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from espalier_pipeline import run
from espalier_pipeline.view import QuietView

SPEC = """\
name: small
objective: {task: {name: classification, config: {text: text, target: label}}, metric: macro_f1}
data:
  mails:
    sources: [{name: files, config: {paths: [mails.csv]}}]
    transforms: [clean, {name: deduplicate, config: {columns: [text]}}]
    split: {by: hash, test: 0.25, validation: 0.25}
candidates:
  tiny:
    strategy: {name: from-scratch, config: {layers: 1, hidden_size: 32, vocabulary_size: 300}}
    training: {epochs: 2, max_tokens: 16, learning_rate: 5.0e-3}
  wide:
    strategy: {name: from-scratch, config: {layers: 1, hidden_size: 64, vocabulary_size: 300}}
    training: {epochs: 2, max_tokens: 16, learning_rate: 5.0e-3}
evaluate: {resamples: 200}
serve: {endpoint: mails, bootstrap: chosen, challenger: runner-up, weights: [50, 50], coverage: 1.0}
"""

_WORDS = {
    "garden": ("rose", "spade", "seeds", "soil", "hedge", "lawn", "compost"),
    "money": ("invoice", "refund", "card", "charge", "receipt", "price", "bank"),
}


def write_small(folder: Path, rows: int = 160) -> Path:
    """Writes the spec and data in which words tell the label, and returns the spec."""
    words, lines = random.Random(0), ["text,label"]
    for number in range(rows):
        label = "garden" if number % 2 else "money"
        text = " ".join(words.choice(_WORDS[label]) for _ in range(6))
        lines.append(f"{text} {number},{label}")
    (folder / "mails.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = folder / "small.yaml"
    path.write_text(SPEC, encoding="utf-8")
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_small(tmp_path)


@pytest.fixture(scope="session")
def _dataset(ray_session: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = write_small(tmp_path_factory.mktemp("dataset"))
    run(spec, only="preprocess", view=QuietView())
    return spec.parent


@pytest.fixture
def prepared(_dataset: Path, tmp_path: Path) -> Path:
    """The small spec beside a home that holds its dataset."""
    shutil.copytree(_dataset, tmp_path / "prepared")
    return tmp_path / "prepared" / "small.yaml"
