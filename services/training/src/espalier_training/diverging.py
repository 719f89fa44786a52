"""Training that diverges ends, and names the step and the rows of its batch: a loss or a gradient is no number.

Knows nothing about how a trainer is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from espalier_sdk import TrainingFailed, clean_name

if TYPE_CHECKING:
    import torch

_TOLD = 8  # rows of a batch that a message names
_SAID = {"loss": "the loss", "grad_norm": "the norm of the gradient"}  # by the name that it is logged by


class Watch:
    """Looks at the losses and gradients of this worker; `rows` tells which examples of the train split a step is about.

    What a device still computes is noted there and read when something is logged: training would wait for it.
    """

    def __init__(self, rows: Callable[[int], Sequence[int]]) -> None:
        self._rows = rows
        self._first: dict[str, torch.Tensor] = {}  # the step of the first value that is no number, infinite where none

    def see(self, name: str, value: Any, step: int) -> None:
        """Looks at a value of a step, from 1; raises TrainingFailed where it is at hand and no number."""
        import torch

        if is_at_hand(value):
            if not math.isfinite(value):
                raise self._diverged(name, float(value), step)
            return
        at = torch.where(torch.isfinite(value.detach()), math.inf, float(step))
        self._first[name] = torch.minimum(self._first[name], at) if name in self._first else at

    def tell(self, logs: Mapping[str, float]) -> None:
        """Raises TrainingFailed where a value that was noted is no number: its step is named, and not that of the log.

        A worker tells of its own passes alone; the others only see that the logged mean is no number.
        """
        noted = [(float(first), name) for name, first in self._first.items()]
        step, name = min(noted, key=lambda one: one[0], default=(math.inf, ""))
        if math.isfinite(step):
            raise self._diverged(name, logs.get(name, math.nan), int(step))

    def _diverged(self, name: str, value: float, step: int) -> TrainingFailed:
        some = [str(row + 1) for row in sorted(self._rows(step))]
        told = ", ".join(some[:_TOLD]) + (f" and {len(some) - _TOLD} more" if len(some) > _TOLD else "")
        return _failed(f"{_SAID[name]} became {value} at step {step}, on the prepared rows {told} of the train split")


def is_at_hand(value: Any) -> bool:
    """Tells whether a value can be read without waiting for what computes it."""
    return isinstance(value, float) or bool(value.device.type == "cpu")


def guard() -> Any:
    """Returns the callback that ends training at the first logged loss or gradient that is no number.

    Every worker logs the same step, so all end alike.
    """
    from transformers import TrainerCallback

    class Guard(TrainerCallback):
        """Looks at what is logged."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
            for name, said in _SAID.items():
                value = (logs or {}).get(name, 0.0)
                if not math.isfinite(value):
                    raise _failed(f"{said} became {value} at step {state.global_step}")

    return Guard()


def require_finite_weights(model: torch.nn.Module, steps: int) -> None:
    """Refuses a model that the last steps spoiled: not every loss is logged, and none tells of the last update."""
    import torch

    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise _failed(f"{clean_name(name)} holds weights that are no numbers after step {steps}")


def _failed(message: str) -> TrainingFailed:
    return TrainingFailed(message, code="diverged", remedy="lower training.learning_rate, or raise training.warmup")
