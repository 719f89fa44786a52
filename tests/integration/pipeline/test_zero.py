"""DeepSpeed ZeRO on two CPU workers: the same losses as plain data parallelism, and models that are whole."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from espalier_pipeline import run
from espalier_pipeline.view import QuietView
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef
from safetensors.numpy import load_file

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed: make setup-deepspeed"),
]
SPEC = """\
name: zero
objective: {task: {name: classification, config: {text: text, target: label}}, metric: macro_f1}
data: {mails: {sources: [{name: files, config: {paths: [mails.csv]}}], split: {by: hash, test: 0, validation: 0.25}}}
candidates:
  tiny:
    strategy: {name: from-scratch, config: {layers: 2, hidden_size: 32, vocabulary_size: 300, dropout: 0}}
    training: {max_steps: 6, max_tokens: 16, learning_rate: 5.0e-3, dtype: float32}
    where: {workers: 2, cpus_per_worker: 1}
  adapted:
    strategy: peft
    base: minilm
    peft: {name: lora, config: {rank: 2, dropout: 0}}
    training: {max_steps: 4, max_tokens: 16, dtype: float32}
    where: {workers: 2, cpus_per_worker: 1}
  thawing:
    strategy: {name: from-scratch, config: {layers: 2, hidden_size: 32, vocabulary_size: 300, dropout: 0}}
    controls: [{name: gradual-unfreezing, config: {blocks_per_stage: 2, share: 0.5, embeddings: false}}]
    training: {max_steps: 6, max_tokens: 16, learning_rate: 5.0e-3, dtype: float32}
    where: {workers: 2, cpus_per_worker: 1}
  stopping:
    strategy: {name: from-scratch, config: {layers: 2, hidden_size: 32, vocabulary_size: 300, dropout: 0}}
    training: {max_steps: 8, max_tokens: 16, learning_rate: 0.3, dtype: float32, validations: 8, early_stopping: 1}
    where: {workers: 2, cpus_per_worker: 1}
"""
PAIRS = """\
name: pairs
objective: {task: {name: generation, config: {prompt: prompt, completion: chosen}}, metric: perplexity}
data: {pairs: {sources: [{name: files, config: {paths: [pairs.csv]}}], split: {by: hash, test: 0, validation: 0.25}}}
candidates:
  answers:
    strategy: {name: from-scratch, config: {family: llama, layers: 2, hidden_size: 32, vocabulary_size: 300}}
    training: {max_steps: 6, max_tokens: 24, learning_rate: 5.0e-3, dtype: float32}
  dpo: &pairs
    strategy: peft
    base: {from: answers}
    peft: {name: lora, config: {rank: 2, dropout: 0}}
    learner: dpo
    training: {max_steps: 4, max_tokens: 24, dtype: float32}
    where: {workers: 2, cpus_per_worker: 1}
  kto:
    <<: *pairs
    learner: kto
evaluate: {metrics: [perplexity]}
"""


class Trained:
    """Losses, weights and metrics of a candidate, trained once per way of laying it over two workers."""

    def __init__(self, folder: Path, candidate: str, spec: str = "zero.yaml") -> None:
        self._spec, self._candidate = folder / spec, candidate
        self.phases: list[tuple[int, int]] = []  # of the model that was trained last

    def __call__(self, **where: object) -> tuple[list[float], dict[str, np.ndarray], Path]:
        """Returns the losses by step, the model's weights and its folder."""
        told = [f"candidates.{self._candidate}.where.{name}={value}" for name, value in where.items()]
        result = run(self._spec, only="train", candidate=self._candidate, overrides=told, view=QuietView())
        ref = ArtifactRef.parse(next(stage["ref"] for stage in result.stages if stage["stage"] == "train"))
        store = Store.open(str(self._spec.parent / ".espalier" / "store"))
        beside, folder = store.beside(ref), store.open_artifact(ref).folder
        assert beside is not None
        history = json.loads((beside / "history.json").read_text())
        self.phases = [(one["start"], one["stop"]) for one in json.loads((beside / "phases.json").read_text())]
        weights = load_file(next(folder.glob("*model.safetensors")))
        return [entry["loss"] for entry in history if "loss" in entry], weights, folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from .conftest import write_small

    place = tmp_path_factory.mktemp("zero")
    write_small(place)
    (place / "zero.yaml").write_text(SPEC, encoding="utf-8")
    (place / "pairs.yaml").write_text(PAIRS, encoding="utf-8")
    lines = [f"{one} or {one + 1},{one},{one + 1},{one % 3 > 0}" for one in range(100, 160)]
    (place / "pairs.csv").write_text("\n".join(["prompt,chosen,rejected,label", *lines]) + "\n", encoding="utf-8")
    return place


@pytest.mark.parametrize("candidate", ["tiny", "adapted"])
@pytest.mark.parametrize(
    "where",
    [
        {"zero_stage": 1},
        {"zero_stage": 2, "offload": "optimizer", "gradient_checkpointing": True},
        {"zero_stage": 3},
    ],
    ids=["stage 1", "stage 2, offloaded", "stage 3"],
)
def test_zero_learns_what_plain_data_parallelism_learns(
    folder: Path, ray_session: object, candidate: str, where: dict
) -> None:
    _compare(Trained(folder, candidate), **where)


@pytest.mark.parametrize("stage", [2, 3])
def test_two_phases_under_zero_learn_what_they_learn_under_plain_data_parallelism(
    folder: Path, ray_session: object, stage: int
) -> None:
    trained = Trained(folder, "thawing")
    _compare(trained, zero_stage=stage)
    assert trained.phases == [(0, 3), (3, 6)]


def test_the_best_weights_are_taken_back_under_stage_3(folder: Path, ray_session: object) -> None:
    """The rate is far too high: the first validation is the best, and training ends at the second."""
    trained = Trained(folder, "stopping")
    losses, weights, _ = trained(zero_stage=0)
    found_losses, found, _ = trained(zero_stage=3)
    assert len(found_losses) == len(losses) == 2
    _compare_weights(found, weights)


@pytest.mark.parametrize(("learner", "stage"), [("dpo", 2), ("dpo", 3), ("kto", 2)])
def test_an_adapter_put_off_is_the_reference_under_zero_too(
    folder: Path, ray_session: object, learner: str, stage: int
) -> None:
    _compare(Trained(folder, learner, "pairs.yaml"), zero_stage=stage)


def test_accumulated_micro_batches_learn_what_whole_ones_learn(folder: Path, ray_session: object) -> None:
    _compare(Trained(folder, "tiny"), zero_stage=2, micro_batch_size=4)  # without dropout: it falls on other places


def _compare(trained: Trained, **where: object) -> None:
    losses, weights, _ = trained(zero_stage=0)
    found_losses, found, folder = trained(**where)
    np.testing.assert_allclose(found_losses, losses, rtol=1e-4)
    _compare_weights(found, weights)
    assert not [path.name for path in folder.iterdir() if path.suffix in (".pt", ".bin")]


def _compare_weights(found: dict[str, np.ndarray], weights: dict[str, np.ndarray]) -> None:
    assert found.keys() == weights.keys()
    whole = [np.concatenate([one[name].ravel() for name in sorted(one)]) for one in (weights, found)]
    assert whole[0].shape == whole[1].shape
    # AdamW's first steps are signs: where a gradient is all but zero, rounding decides a weight's.
    assert np.linalg.norm(whole[0] - whole[1]) < 5e-3 * np.linalg.norm(whole[0])
