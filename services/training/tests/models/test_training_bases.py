"""Bases: each is fetched by what it is, not by the name of its plugin."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from espalier_runtime.job import Workplace, perform
from espalier_runtime.plugins import Plugins
from espalier_runtime.ray_session import Session
from espalier_runtime.request import base_choice, base_request
from espalier_runtime.specs import Spec
from espalier_runtime.store import Store
from espalier_training.stages import fetch_base
from safetensors.numpy import load_file, save_file


def make_folder(folder: Path, weight: float) -> dict:
    """Writes what the base model `folder` takes, and returns the choice of it."""
    folder.mkdir()
    save_file({"weight": np.full(3, weight, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "tokenizer.json").write_text("{}")
    return {"name": "folder", "config": {"path": str(folder)}}


def test_two_folders_in_one_spec_are_two_bases(tmp_path: Path) -> None:
    choices = {name: make_folder(tmp_path / name, weight) for name, weight in (("first", 1.0), ("second", 2.0))}
    spec = Spec.model_validate(
        {
            "name": "tiny",
            "objective": {"task": "classification", "metric": "macro_f1"},
            "data": {"tickets": {"sources": ["files"]}},
            "candidates": {name: {"strategy": "full-finetune", "base": base} for name, base in choices.items()},
        }
    )
    place = Workplace(spec, Store.open(str(tmp_path / "store")), tmp_path / "home", Plugins(), Session())
    for name, weight in (("second", 2.0), ("first", 1.0)):
        choice = base_choice(spec.candidates[name])
        assert choice is not None
        manifest, cached = perform(base_request(choice, place.plugins), fetch_base, place)
        assert not cached
        weights = load_file(place.store.open_artifact(manifest.ref()).folder / "model.safetensors")
        assert weights["weight"].tolist() == [weight] * 3
