"""TRL's trainers on rows that are encoded already, with a reference that costs no copy where an adapter can be off.

Knows no loss: each learner names the trainer that it means.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def kept_frozen(model: Any) -> Iterator[None]:
    """Leaves frozen what is: PEFT, when it puts an adapter on again, would train all of it."""
    frozen = [one for one in model.parameters() if not one.requires_grad]
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def on_prepared_rows(trainer: type[Any]) -> type[Any]:
    """Returns a subclass of a TRL trainer that takes any map-style dataset and leaves it as it is.

    It writes no model card and sends nothing about the training to anybody.
    """
    import torch
    from datasets import Dataset

    class AdapterOff(torch.nn.Module):
        """Stands for the reference while TRL builds: without one it would add a second adapter to the model."""

        def __init__(self, config: Any) -> None:
            super().__init__()
            self.config = config
            self.weight = torch.nn.Parameter(torch.zeros(1), requires_grad=False)  # DeepSpeed asks for a first one

    class OnPreparedRows(trainer):  # type: ignore[misc]
        """The trainer, told that its data are ready."""

        def __init__(self, *, model: Any, train_dataset: Any, eval_dataset: Any = None, **given: Any) -> None:
            adapted = hasattr(model, "peft_config") and "ref_model" in given and given["ref_model"] is None
            if adapted:
                given["ref_model"] = AdapterOff(model.config)
            # TRL takes a datasets.Dataset alone, and looks into its first row for images.
            super().__init__(model=model, train_dataset=Dataset.from_dict({"input_ids": [[0]]}), **given)
            self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
            if adapted:
                self.ref_model = None  # from here on TRL asks the model itself, with its adapter off

        def compute_loss(self, model: Any, *given: Any, **more: Any) -> Any:
            """Returns the loss, and leaves frozen what is."""
            with kept_frozen(model):
                return super().compute_loss(model, *given, **more)

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Writes nothing: a model's card is the platform's."""

        def _send_telemetry(self) -> None:
            """Sends nothing."""

    return OnPreparedRows
