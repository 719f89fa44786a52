"""Other candidates' models that a learner asks while it trains: opened with all their weights, frozen, on its device.

Knows no learner; what a role is for is the learner's own matter.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_runtime.card import read_card
from espalier_runtime.merging import whole_folder
from espalier_runtime.plugins import Plugins
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef, Head, SpecError
from espalier_sdk.heads import load_model

from espalier_training.device import own_device
from espalier_training.job import TrainJob

if TYPE_CHECKING:
    import torch
    from espalier_sdk.protocols import Learner
    from transformers import PreTrainedTokenizerBase as Tokenizer


def open_auxiliaries(
    job: TrainJob, learner: Learner, store: Store, plugins: Plugins, *, scratch: Path
) -> dict[str, tuple[torch.nn.Module, Tokenizer]]:
    """Returns model and tokenizer by role, on this worker's device; an adapter is merged into its base.

    Raises SpecError where a model puts out something else than the learner asks for, or reads side columns.
    """
    from transformers import AutoTokenizer

    found = {}
    for role, kind in learner.auxiliaries.items():
        ref = ArtifactRef.parse(job.auxiliaries[role])
        head = Head(**read_card(store.open_artifact(ref).folder)["head"])
        if head.kind != kind or head.side_width:
            beside = " and reads side columns" if head.side_width else ""
            raise SpecError(
                f"{ref.name} builds {head.kind}{beside}, the learner {job.learner['name']} asks {kind} of texts alone",
                field=f"candidates.{job.candidate}.auxiliaries.{role}.from",
                given=ref.name,
            )
        folder = whole_folder(store, ref, plugins, scratch=scratch)
        model = load_model(folder, head).float().requires_grad_(False).eval()
        found[role] = (_placed(model, job.training["dtype"]), AutoTokenizer.from_pretrained(folder))
    return found


def _placed(model: Any, dtype: str) -> Any:
    """Puts a model where the worker computes, and in its precision: trainers do so only with models that they know."""
    import torch

    device = own_device()
    if dtype == "bfloat16":
        model.forward = torch.autocast(device.type, torch.bfloat16)(model.forward)
    return model.to(device)
