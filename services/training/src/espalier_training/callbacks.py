"""What happens between steps: progress is told, a PEFT method acts.

Knows nothing about how a trainer is made.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_training.job import PROGRESS, TrainJob

if TYPE_CHECKING:
    from espalier_sdk.protocols import PeftMethod

    from espalier_training.remote import RemoteCheckpoints

_SECONDS, _SECONDS_REMOTE = 0.3, 5.0  # between two messages


def reporter(job: TrainJob, *, steps: int, tokens_per_step: float, remote: RemoteCheckpoints | None) -> Any:
    """Returns the callback that leaves step, loss, speed and time left in a file: beside the model, or in the store.

    A worker that sees neither tells nothing.
    """
    from transformers import TrainerCallback

    path = Path(job.beside) / PROGRESS
    visible = path.parent.is_dir()
    every = _SECONDS if visible else _SECONDS_REMOTE

    class Reporter(TrainerCallback):
        """Leaves the step and the loss in a file that the stage passes on."""

        def __init__(self) -> None:
            self._written, self._started, self._first = 0.0, time.monotonic(), 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._first = state.global_step  # a resumed run's rate is that of its own steps

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            now, step = time.monotonic(), state.global_step
            if not (visible or remote) or (now - self._written < every and step < steps):
                return
            self._written = now
            rate = (step - self._first) / max(now - self._started, 1e-9)
            loss = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), None)
            told = [f"loss {loss:.3f}"] if loss is not None else []
            told += [f"{rate * tokens_per_step:.0f} tokens/s", f"{(steps - step) / rate:.0f} s left"]
            event = {"step": step, "steps": steps, "note": ", ".join(told), "pid": os.getpid()}
            if not visible and remote:
                remote.tell(event)
                return
            temporary = path.with_suffix(".part")
            temporary.write_text(json.dumps(event))
            temporary.replace(path)

    return Reporter()


def after_step(method: PeftMethod, steps: int) -> Any:
    """Returns the callback that lets a PEFT method act after each step, while gradients are still there."""
    from transformers import TrainerCallback

    class AfterStep(TrainerCallback):
        """Calls the method with the number of steps before this one."""

        def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            method.after_step(model, step=state.global_step, steps=steps)

    return AfterStep()
