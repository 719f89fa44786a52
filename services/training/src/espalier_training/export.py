"""`python -m espalier_training.export`: a model as a plain Hugging Face folder, with an adapter merged if asked.

Runs as a child of `espalier export`, so that the command line imports no torch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from espalier_runtime.card import CARD, read_card
from espalier_runtime.main import print_errors, watch_parent
from espalier_runtime.merging import ADAPTERS_OWN, copy_beside, merged_model
from espalier_runtime.plugins import Plugins
from espalier_runtime.store import OpenArtifact, Store
from espalier_sdk.errors import EspalierError, SpecError


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
    except EspalierError as error:
        print_errors(error, as_json=True)
        return error.exit_code
    head = read_card(opened.folder)["head"]
    print(json.dumps({"model": str(opened.ref), "path": arguments.out, "files": files, "head": head}))
    return 0


def export(opened: OpenArtifact, store: Store, out: Path, *, merged: bool) -> list[str]:
    """Writes a model into a new or empty folder and returns its files.

    A whole model and a merged adapter open with `AutoModel...from_pretrained`; an adapter that is not merged opens
    with PEFT on its base. Raises SpecError where the folder is not empty, NotMergeable where the method cannot merge.
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
    _name_labels(out, card["state"].get("labels"))
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def _name_labels(out: Path, labels: list[str] | None) -> None:
    """Writes the labels into the configuration, so that a pipeline of transformers answers with their names."""
    path = out / "config.json"
    if not labels or not path.is_file():
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    config["id2label"] = {str(place): label for place, label in enumerate(labels)}
    config["label2id"] = {label: place for place, label in enumerate(labels)}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
