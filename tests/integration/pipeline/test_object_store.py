"""A run whose store is an S3 server: everything is found again there, and nothing of training is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from espalier_runtime import shelf
from espalier_runtime.store import Store
from espalier_runtime.testing import s3_store
from espalier_sdk import ArtifactRef

TOGETHER = ["candidates.tiny.where.workers=2", "candidates.tiny.where.cpus_per_worker=1"]
OFTEN = "candidates.tiny.where.checkpoint_steps=2"


def test_two_workers_train_with_an_object_store_alone(small: Path, tmp_path: Path) -> None:
    with s3_store() as uri:
        if uri is None:
            pytest.skip("moto's server is not installed: nothing is run on S3")
        first = _run(small, uri, tmp_path / "home", os.environ)
        store = Store.open(uri)
        trained = next(one for one in first["stages"] if one["stage"] == "train")
        assert store.manifest(ArtifactRef.parse(trained["ref"])).what["world"]["workers"] == 2
        assert [shelf.folders(store, name) for name in (shelf.CHECKPOINTS, shelf.RAY)] == [[], []]
        again = _run(small, uri, tmp_path / "another home", os.environ)
        assert all(one["cached"] for one in again["stages"])


def _run(spec: Path, store: str, home: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Runs the command with a Ray of its own, whose workers know the server."""
    alone = {name: value for name, value in environment.items() if not name.startswith("RAY_ADDRESS")}
    command = [sys.executable, "-m", "espalier_pipeline.command", "run", str(spec), "--only", "train"]
    command += ["--candidate", "tiny", "--store", store, "--home", str(home), "--json"]
    for override in (*TOGETHER, OFTEN):
        command += ["--set", override]
    done = subprocess.run(command, env=alone, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document
