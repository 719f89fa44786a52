"""A model that is an adapter on a base, as one whole model: what is started from, compared with, and exported.

Knows no PEFT method and no strategy by name.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from espalier_sdk.artifacts import ArtifactRef
from espalier_sdk.choice import Choice
from espalier_sdk.fourbit import dequantised
from espalier_sdk.model import Head, Placement

from espalier_runtime.card import CARD, quantised_as, read_card
from espalier_runtime.plugins import Plugins
from espalier_runtime.store import OpenArtifact, Store

# What a whole model does not have: the adapter's own files, and what PEFT writes beside them.
ADAPTERS_OWN = ("adapter_", "trained.", CARD, "README.md")


def whole_folder(store: Store, ref: ArtifactRef, plugins: Plugins, *, scratch: Path) -> Path:
    """Returns a folder with all weights of a model: its own, or an adapter merged into its base, written to scratch.

    Raises NotMergeable where the PEFT method cannot be merged.
    """
    opened = store.open_artifact(ref)
    if not (opened.folder / CARD).is_file() or not read_card(opened.folder)["peft"]:
        return opened.folder
    out = scratch / f"{ref.kind}-{ref.name}-{ref.digest}"
    if not out.exists():
        merged_model(opened, store, plugins, scratch=scratch).save_pretrained(out)
        copy_beside(opened.folder, out, leave_out=ADAPTERS_OWN)
    return out


def merged_model(opened: OpenArtifact, store: Store, plugins: Plugins, *, scratch: Path) -> Any:
    """Returns the model of an adapter, merged into its base (and that into its own, where it is an adapter too).

    A base in four bits is made whole first, with the values of its four bits: the adapter was trained beside those.
    """
    from transformers import AutoTokenizer
    from transformers.trainer_utils import align_special_tokens

    card = read_card(opened.folder)
    base = whole_folder(store, ArtifactRef.parse(card["base"]), plugins, scratch=scratch)
    strategy = plugins.load("espalier.model_strategies", Choice(**card["strategy"]))
    method = plugins.load("espalier.peft_methods", Choice(**card["peft"]))
    blueprint = strategy.blueprint(Head(**card["head"]), tokenizer=opened.folder, base=base)
    built = strategy.build(blueprint, base=base, placement=Placement(quantise=quantised_as(card)))
    model = method.merge(method.load(dequantised(built), opened.folder))
    model.name_or_path = ""
    model.config._name_or_path = ""
    # As the trainer does with a whole model: else the base's settings say where writing stops.
    align_special_tokens(model, AutoTokenizer.from_pretrained(opened.folder))
    return model


def copy_beside(source: Path, out: Path, *, leave_out: tuple[str, ...]) -> None:
    """Copies the files of a folder that the other lacks, save those whose names begin so."""
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith(leave_out) and not (out / path.name).exists():
            shutil.copyfile(path, out / path.name)
