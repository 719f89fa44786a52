"""An object store instead of a claim: two pods train together with ZeRO-2, one is lost, and the model is served.

Part of `make e2e` where E2E_S3 is the address of an S3 server that pods and this machine reach, with its credentials in
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. A bucket is made there and stays.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from espalier_runtime import shelf
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef

from .conftest import (
    CHART,
    ESPALIER,
    NAMESPACE,
    RELEASE,
    SPEC,
    answers,
    command,
    endpoint,
    get,
    helm,
    kubectl,
    program,
    wait_for_endpoint,
    wait_until,
)

VALUES = Path(__file__).with_name("object-store-values.yaml")
BUCKET = f"espalier-{uuid.uuid4().hex[:12]}"
ASKED = {"message": "my parcel never came"}
STORE = f"s3://{BUCKET}/e2e"
TOGETHER = ["pool=pair", "workers=2", "cpus_per_worker=1", "zero_stage=2", "checkpoint_steps=10"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    address = os.environ.get("E2E_S3")
    if not address:
        pytest.skip("E2E_S3 names no S3 server: nothing was tried with an object store")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_REGION", os.environ.get("AWS_REGION", "us-east-1"))
    scheme, _, host = address.partition("://")
    pafs.S3FileSystem(endpoint_override=host, scheme=scheme, allow_bucket_creation=True).create_dir(BUCKET)
    return address


def test_two_pods_train_together_one_is_lost_and_the_model_is_served(server: str) -> None:
    _install(server)
    begun = time.monotonic()
    changed = [word for value in TOGETHER for word in ("--set", f"candidates.full.where.{value}")]
    child = subprocess.Popen(
        [*ESPALIER, "submit", str(SPEC), "-n", NAMESPACE, "--json", *changed],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    store = Store.open(STORE)
    wait_until("a checkpoint is in the store", lambda: _committed(store), seconds=900)
    lost = get("pods", "-l", "ray.io/node-type=worker,espalier.dev/segment=c-full")["items"][-1]["metadata"]["name"]
    kubectl("delete", "pod", lost, "--grace-period=0", "--force")
    print(f"{lost} lost after {time.monotonic() - begun:.0f} s, with {_committed(store)} in the store", flush=True)
    output, _ = child.communicate(timeout=1800)
    assert child.returncode == 0
    document = json.loads(output)
    print(f"two pods with ZeRO-2, one lost, submitted and finished in {time.monotonic() - begun:.0f} s", flush=True)
    assert Path(document["report"]).stat().st_size > 10_000
    full = next(one for one in document["stages"] if (one["stage"], one["name"]) == ("train", "full"))
    manifest = store.manifest(ArtifactRef.parse(full["ref"]))
    assert (manifest.what["world"]["workers"], manifest.what["world"]["zero_stage"]) == (2, 2)
    assert manifest.metrics["resumed_at"] >= 10, manifest.metrics
    assert [shelf.folders(store, name) for name in (shelf.CHECKPOINTS, shelf.RAY)] == [[], []]
    with endpoint() as client:
        wait_until("the champion answers", lambda: answers(client, "support", ASKED), seconds=300)
    _mlflow_keeps_files_in(store)
    helm("uninstall", RELEASE, "--wait")
    kubectl("delete", "jobs", "-l", "espalier.dev/submission", "--wait")
    command(program("KUBECTL"), "delete", "namespace", NAMESPACE, "--wait")


def _install(server: str) -> None:
    command(program("KUBECTL"), "create", "namespace", NAMESPACE)
    command(program("KUBECTL"), "label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    keys = ("access-key-id", "AWS_ACCESS_KEY_ID"), ("secret-access-key", "AWS_SECRET_ACCESS_KEY")
    kubectl("create", "secret", "generic", "s3", *(f"--from-literal={key}={os.environ[name]}" for key, name in keys))
    where = {"endpoint": server, "region": os.environ["AWS_REGION"], "bucket": BUCKET, "prefix": "e2e"}
    words = [word for name, value in where.items() for word in ("--set-string", f"storage.s3.{name}={value}")]
    words += ["--set", "storage.s3.enabled=true", "--set", "storage.s3.existingSecret.name=s3"]
    helm("install", RELEASE, CHART, "-f", VALUES, *words)
    wait_for_endpoint()
    helm("test", RELEASE, "--timeout", "10m")


def _committed(store: Store) -> list[str]:
    """Returns the checkpoints in the store that count."""
    found: list[str] = []
    for request in shelf.folders(store, shelf.CHECKPOINTS):
        for name in shelf.folders(store, f"{shelf.CHECKPOINTS}/{request}"):
            if shelf.get(store, f"{shelf.CHECKPOINTS}/{request}/{name}/committed.json"):
                found.append(name)
    return found


def _mlflow_keeps_files_in(store: Store) -> None:
    """A file that somebody logs to the chart's server lies below the store's prefix."""
    script = (
        "import mlflow; mlflow.set_tracking_uri('http://localhost:5000'); mlflow.set_experiment('e2e'); "
        "mlflow.start_run(); mlflow.log_text('kept', 'note.txt')"
    )
    kubectl("exec", f"deploy/{RELEASE}-mlflow", "--", "python", "-c", script)
    assert shelf.folders(store, "mlflow"), kubectl("logs", f"deploy/{RELEASE}-mlflow", "--tail=30")
