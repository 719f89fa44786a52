"""What a training worker is told: plain values that travel to any node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PROGRESS = "progress.json"


@dataclass(frozen=True)
class TrainJob:
    """One candidate's training. Artifacts by reference, choices as JSON, so that a worker opens all of it itself."""

    request: str  # digest
    candidate: str
    store: str
    dataset: str
    prepared: str
    base: str | None
    auxiliaries: dict[str, str]  # other candidates' models, by role
    out: str
    beside: str
    strategy: dict[str, Any]
    peft: dict[str, Any] | None
    learner: dict[str, Any]
    task: dict[str, Any]
    controls: tuple[dict[str, Any], ...]
    training: dict[str, Any]
    workers: int
    threads: int
    zero_stage: int
    offload: str
    gradient_checkpointing: bool
    compile: bool
    micro_batch_size: int
    accumulation: int
    checkpoint_steps: int
    checkpoints: str | None  # where committed checkpoints lie; None keeps them only while this process lives
    plugins: tuple[dict[str, Any], ...]

    @property
    def world(self) -> dict[str, int]:
        """Returns what sharded checkpoints depend on."""
        return {"workers": self.workers, "zero_stage": self.zero_stage}
