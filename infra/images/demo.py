"""Trains the from-scratch candidate of an example and leaves it as a demo: a store with one model, and its proposal.

python demo.py SPEC OUT
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from espalier_pipeline import run
from espalier_runtime.copying import copy_artifact
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef

CANDIDATE = "scratch"


def main(spec: Path, out: Path) -> None:
    """Runs the example up to training in a folder of its own, and keeps the model alone."""
    with tempfile.TemporaryDirectory() as home:
        result = run(spec, only="train", candidate=CANDIDATE, home=Path(home))
        (ref,) = [stage["ref"] for stage in result.stages if stage["stage"] == "train"]
        source, target = Store.open(str(Path(home) / "store")), Store.open(str(out / "store"))
        copy_artifact(ArtifactRef.parse(ref), source=source, target=target)
    proposal = {
        "endpoint": "demo",
        "task": "classification",
        "variants": [[CANDIDATE, ref, "transformers", {}]],
        "bootstrap": CANDIDATE,
    }
    (out / "proposal.json").write_text(json.dumps(proposal, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
