"""What happens between steps: progress is told, a loss that is no number ends training, a PEFT method acts.

Knows nothing about how a trainer is made.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_sdk import TrainingFailed, clean_name

from espalier_training.job import PROGRESS, TrainJob

if TYPE_CHECKING:
    import torch
    from espalier_sdk.protocols import PeftMethod

    from espalier_training.remote import RemoteCheckpoints

_TOLD = 8  # rows of a batch that a message names
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


def guard() -> Any:
    """Returns the callback that ends training at the first logged loss or gradient that is no number.

    Every worker logs the same step, so all end alike.
    """
    from transformers import TrainerCallback

    class Guard(TrainerCallback):
        """Looks at what is logged."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
            for name, said in (("loss", "the loss"), ("grad_norm", "the norm of the gradient")):
                value = (logs or {}).get(name, 0.0)
                if not math.isfinite(value):
                    raise _diverged(f"{said} became {value} at step {state.global_step}")

    return Guard()


def require_finite_loss(loss: float, step: int, *, rows: Callable[[], Sequence[int]]) -> None:
    """Refuses a pass whose loss is no number; `rows` tells which examples of the train split the step is about."""
    if not math.isfinite(loss):
        some = [str(row + 1) for row in sorted(rows())]
        told = ", ".join(some[:_TOLD]) + (f" and {len(some) - _TOLD} more" if len(some) > _TOLD else "")
        raise _diverged(f"the loss became {loss} at step {step}, on the prepared rows {told} of the train split")


def is_at_hand(loss: torch.Tensor) -> bool:
    """Tells whether a loss can be read without waiting for what computes it."""
    return loss.device.type == "cpu"


class LaterLoss:
    """Notes, on the device that computes losses, the step of the first one that is no number: read when one is logged.

    A worker tells of its own passes alone; the others only see that the logged mean is no number.
    """

    def __init__(self) -> None:
        self._first: torch.Tensor | None = None

    def see(self, loss: torch.Tensor, step: int) -> None:
        """Notes a pass of a step, from 1."""
        import torch

        at = torch.where(torch.isfinite(loss.detach()), math.inf, float(step))
        self._first = at if self._first is None else torch.minimum(self._first, at)

    def spoiled(self, logs: Mapping[str, float]) -> int | None:
        """Returns the step where the logged loss is no number and a pass of this worker made it so."""
        if self._first is None or math.isfinite(logs.get("loss", 0.0)):
            return None
        first = float(self._first)
        return int(first) if math.isfinite(first) else None


def after_step(method: PeftMethod, steps: int) -> Any:
    """Returns the callback that lets a PEFT method act after each step, while gradients are still there."""
    from transformers import TrainerCallback

    class AfterStep(TrainerCallback):
        """Calls the method with the number of steps before this one."""

        def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            method.after_step(model, step=state.global_step, steps=steps)

    return AfterStep()


def require_finite_weights(model: torch.nn.Module, steps: int) -> None:
    """Refuses a model that the last steps spoiled: not every loss is logged, and none tells of the last update."""
    import torch

    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise _diverged(f"{clean_name(name)} holds weights that are no numbers after step {steps}")


def _diverged(message: str) -> TrainingFailed:
    return TrainingFailed(message, code="diverged", remedy="lower training.learning_rate, or raise training.warmup")
