"""`python -m espalier_training.export`: a model as a plain Hugging Face folder, with an adapter merged if asked.

Runs as a child of `espalier export`, so that the command line imports no torch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espalier_runtime.card import CARD, read_card
from espalier_runtime.main import print_errors, watch_parent
from espalier_runtime.merging import ADAPTERS_OWN, copy_beside, merged_model
from espalier_runtime.plugins import Plugins
from espalier_runtime.store import OpenArtifact, Store
from espalier_sdk.choice import Choice
from espalier_sdk.errors import EspalierError, SpecError
from espalier_sdk.heads import auto_class, pipeline_of, scale_of
from espalier_sdk.model import Head, PeftTraits


def main() -> int:
    """Writes the folder, prints what was written as JSON, and returns the exit code."""
    parser = argparse.ArgumentParser(description="Writes a model as a plain Hugging Face folder.")
    parser.add_argument("--store", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--merged", action="store_true")
    arguments = parser.parse_args()
    watch_parent()
    try:
        store = Store.open(arguments.store)
        opened = store.open_artifact(store.resolve(arguments.model))
        files = export(opened, store, Path(arguments.out), merged=arguments.merged)
        card = read_card(opened.folder)
        traits = None if arguments.merged else traits_of(card, Plugins())
    except EspalierError as error:
        print_errors(error, as_json=True)
        return error.exit_code
    told = {"model": str(opened.ref), "path": arguments.out, "files": files, "head": card["head"]}
    adapter = {"base": card["base"], "mergeable": traits.mergeable} if traits else None
    head = Head(**card["head"])
    told |= {"opens": opens(head, traits, Path(arguments.out)), "scale": scale_of(head, card["state"])}
    print(json.dumps({**told, "adapter": adapter}))
    return 0


def export(opened: OpenArtifact, store: Store, out: Path, *, merged: bool) -> list[str]:
    """Writes a model into a new or empty folder and returns its files.

    A whole model and a merged adapter open with `AutoModel...from_pretrained`; an adapter that is not merged opens
    on its base, with PEFT where its method's traits say so, else with Espalier alone (`opens`). Raises SpecError where
    the folder is not empty, NotMergeable where the method cannot merge.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SpecError("is not empty", field="DIR", file=str(out), remedy="name a new folder")
    card = read_card(opened.folder)
    out.mkdir(parents=True, exist_ok=True)
    if merged and card["peft"]:
        with tempfile.TemporaryDirectory(prefix="espalier-merged-") as scratch:
            merged_model(opened, store, Plugins(), scratch=Path(scratch)).save_pretrained(out)
        copy_beside(opened.folder, out, leave_out=ADAPTERS_OWN)
    else:
        copy_beside(opened.folder, out, leave_out=(CARD,))
    _configure(out, card["state"].get("labels"), scale_of(Head(**card["head"]), card["state"]))
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def traits_of(card: Mapping[str, Any], plugins: Plugins) -> PeftTraits | None:
    """Returns the traits of the method by which a model is an adapter; None for a whole model."""
    if not card["peft"]:
        return None
    traits: PeftTraits = plugins.ask("espalier.peft_methods", Choice(**card["peft"]), "traits")
    return traits


def opens(head: Head, adapter: PeftTraits | None, out: Path) -> str | None:
    """Returns the Python that opens an exported folder; None where that takes Espalier and its store."""
    folder = repr(str(out))
    if adapter:
        if not adapter.opens_with_peft or head.side_width:
            return None
        outputs = f", num_labels={head.outputs}" if head.outputs else ""
        base = f"transformers.{auto_class(head.kind)}.from_pretrained(BASE{outputs})"
        return f"peft.PeftModel.from_pretrained({base}, {folder})"
    if head.side_width:  # an auto class of transformers would leave the head out, and answer all the same
        return f"espalier_sdk.heads.load_model(Path({folder}), {head})"
    if pipeline := pipeline_of(head.kind):
        return f"transformers.pipeline({pipeline!r}, {folder})"
    return f"transformers.{auto_class(head.kind)}.from_pretrained({folder})"


def _configure(out: Path, labels: list[str] | None, scale: Mapping[str, float] | None) -> None:
    """Writes into the configuration what the answers mean: labels, by whose names a pipeline answers, or a scale."""
    path = out / "config.json"
    if not (labels or scale) or not path.is_file():
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    if labels:
        config["id2label"] = {str(place): label for place, label in enumerate(labels)}
        config["label2id"] = {label: place for place, label in enumerate(labels)}
    if scale:
        config["espalier_target"] = scale
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
