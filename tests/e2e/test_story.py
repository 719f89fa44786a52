"""The whole story on a cluster, in order: install, ask, submit, experiment, kill, upgrade, roll back, uninstall.

    make e2e KUBECONFIG=... [HELM=helm] [KUBECTL=kubectl] [E2E_NAMESPACE=espalier-e2e] [E2E_VALUES=FILE]
        [E2E_KILLS=1] [E2E_RATE=50]

Each step goes on where the one before it ended, and prints how long it took. The namespace must be free: it is made
here, with the restricted profile enforced, and deleted at the end.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from espalier_pipeline.client import Client

from .conftest import (
    CHART,
    ESPALIER,
    NAMESPACE,
    RELEASE,
    SPEC,
    VALUES,
    answers,
    command,
    endpoint,
    get,
    helm,
    kubectl,
    load,
    program,
    refs,
    submitted,
    wait_for_endpoint,
    wait_until,
)

ASKED = {"message": "my parcel never came"}
STORY: dict[str, Any] = {}
KILLS = int(os.environ.get("E2E_KILLS", "1"))  # of each victim, one after the other
DISTURBED = (
    ["scratch", "full", "lora"] if KILLS > 1 else ["scratch"]
)  # trained anew, so that there is something to kill


def told(step: str, seconds: float) -> None:
    print(f"{step:<44} {seconds:6.1f} s", flush=True)


def test_the_chart_is_installed_in_a_restricted_namespace_and_answers() -> None:
    command(program("KUBECTL"), "create", "namespace", NAMESPACE)
    labels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
    command(program("KUBECTL"), "label", "namespace", NAMESPACE, *labels)
    begun = time.monotonic()
    installed = helm("install", RELEASE, CHART, "-f", VALUES)
    assert "PodSecurity" not in installed.stderr, installed.stderr
    wait_for_endpoint()
    with endpoint() as client:
        wait_until("the demo answers", lambda: answers(client, "demo", "my parcel never came"), seconds=300)
    told("helm install to the first answer", time.monotonic() - begun)
    begun = time.monotonic()
    helm("test", RELEASE, "--timeout", "10m")
    told("helm test", time.monotonic() - begun)


def test_nobody_has_more_rights_than_needed() -> None:
    account = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-driver"

    def may(*words: str) -> bool:
        return kubectl("auth", "can-i", *words, "--as", account, check=False).strip() == "yes"

    assert may("create", "rayjobs.ray.io")
    for verb in ("get", "list", "create", "watch"):
        assert not may(verb, "secrets"), f"the driver may {verb} secrets"
    assert not may("create", "pods/exec")
    assert not may("delete", "rayservices.ray.io")
    others = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
    assert kubectl("auth", "can-i", "list", "pods", "--as", others, check=False).strip() == "no"


def test_doctor_finds_nothing_wrong() -> None:
    done = command(*ESPALIER, "doctor", "-n", NAMESPACE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_demo_s_pipeline_is_submitted_and_its_artifacts_are_those_of_a_local_run(tmp_path: Path) -> None:
    begun = time.monotonic()
    STORY["document"] = submitted()
    told("the demo's pipeline submitted and finished", time.monotonic() - begun)
    local = command(*ESPALIER, "run", SPEC, "--json", "--home", tmp_path, "--only", "train", seconds=1800)
    made = refs(json.loads(local.stdout))
    there = refs(STORY["document"])
    assert {name: there[name] for name in made} == made


def test_submitted_again_nothing_is_repeated() -> None:
    begun = time.monotonic()
    document = submitted()
    told("submitted again", time.monotonic() - begun)
    assert all(stage["cached"] for stage in document["stages"] if stage["ref"])
    assert refs(document) == refs(STORY["document"])


def test_an_experiment_begins_under_load_and_no_request_fails() -> None:
    with endpoint() as client:
        wait_until("both variants are ready", lambda: _ready(client, "support"), seconds=300)
        with load("support", ASKED, during="an experiment"):
            time.sleep(5)
            client.start_experiment("support")
            time.sleep(25)
        results = client.results(str(client.experiment("support")["id"]))
        assert all(arm["units"] > 0 for arm in results["arms"].values())
        client.stop_experiment("support")


def _ready(client: Client, name: str) -> bool:
    found = [one for one in client.endpoints() if one["name"] == name]
    return bool(found) and all(variant["state"] == "ready" for variant in found[0]["variants"])


@pytest.mark.parametrize("victim", ["driver", "segment", "operator"])
def test_what_is_killed_goes_on_and_comes_to_the_same(victim: str, tmp_path: Path) -> None:
    if victim == "operator" and not _pods_of("operator", ""):
        pytest.skip("KubeRay's operator is no pod here: nothing to kill")
    seed = 7 + ("driver", "segment", "operator").index(victim)
    changed = [word for name in DISTURBED for word in ("--set", f"candidates.{name}.training.seed={seed}")]
    child = subprocess.Popen(
        [*ESPALIER, "submit", str(SPEC), "-n", NAMESPACE, "--json", *changed],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    name = _name_of_job(child)
    wait_until("a segment trains", lambda: "train " in kubectl("logs", f"job/{name}", check=False), seconds=600)
    chance, begun = random.Random(victim), time.monotonic()
    for _ in range(KILLS):
        wait_until(f"the {victim} runs", lambda: _pods_of(victim, name), seconds=300)
        time.sleep(chance.uniform(0, 10) if KILLS > 1 else 0)
        assert child.poll() is None, "the run ended before it was killed as often as asked"
        for namespace, pod in _pods_of(victim, name):
            kill = ("delete", "pod", pod, "-n", namespace, "--grace-period=0", "--force")
            command(program("KUBECTL"), *kill, check=False)
    output, said = child.communicate(timeout=1800)
    assert child.returncode in (0, 6), said
    document = json.loads(output.strip().splitlines()[-1])
    only = ["--only", "train", "--home", tmp_path, *(["--candidate", *DISTURBED] if len(DISTURBED) == 1 else [])]
    undisturbed = refs(json.loads(command(*ESPALIER, "run", SPEC, "--json", *only, *changed, seconds=1800).stdout))
    assert {one: refs(document)[one] for one in undisturbed} == undisturbed
    told(f"{victim} killed {KILLS} times, from the first to the end", time.monotonic() - begun)


def _pods_of(victim: str, name: str) -> list[tuple[str, str]]:
    """Returns namespace and name of the victim's pods that run and are not going."""
    where = {
        "driver": ("-n", NAMESPACE, "-l", f"batch.kubernetes.io/job-name={name}"),
        "segment": ("-n", NAMESPACE, "-l", f"espalier.dev/submission={name},ray.io/node-type=head"),
        "operator": ("-A", "-l", "app.kubernetes.io/name=kuberay-operator"),
    }[victim]
    pods = json.loads(command(program("KUBECTL"), "get", "pods", *where, "-o", "json").stdout)["items"]
    running = [one["metadata"] for one in pods if one["status"].get("phase") == "Running"]
    return [(one["namespace"], one["name"]) for one in running if not one.get("deletionTimestamp")]


def _name_of_job(child: subprocess.Popen[str]) -> str:
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("job "):
            threading.Thread(target=child.stderr.read, daemon=True).start()
            return line.split()[1]
    raise AssertionError("nothing was submitted")


def test_an_upgrade_and_a_roll_back_keep_keys_and_models() -> None:
    before = get("secret", f"{RELEASE}-keys")["data"]
    begun = time.monotonic()
    helm("upgrade", RELEASE, CHART, "-f", VALUES, "--set", "jobs.preRunningDeadlineSeconds=901")
    assert json.loads(get("configmap", f"{RELEASE}-pools")["data"]["settings.json"])["preRunningDeadlineSeconds"] == 901
    helm("rollback", RELEASE)
    told("upgrade and roll back", time.monotonic() - begun)
    assert get("secret", f"{RELEASE}-keys")["data"] == before
    with endpoint() as client:
        wait_until("the demo answers", lambda: answers(client, "demo", "where is my parcel"), seconds=300)
        wait_until("the champion answers", lambda: answers(client, "support", ASKED), seconds=300)


def test_the_release_s_secret_is_small() -> None:
    secrets = [one for one in get("secrets")["items"] if one["type"].startswith("helm.sh/release")]
    size = max(len(one["data"]["release"]) for one in secrets)
    print(f"the release's Secret: {size / 1024:.0f} KB", flush=True)
    assert size < 400 * 1024


def test_after_an_uninstall_only_what_is_kept_is_left() -> None:
    helm("uninstall", RELEASE, "--wait")
    kubectl("delete", "jobs", "-l", "espalier.dev/submission", "--wait")
    wait_until("all pods are gone", lambda: not get("pods")["items"], seconds=420)
    kinds = "deployments,statefulsets,cronjobs,services,rayservices.ray.io,rayclusters.ray.io,rayjobs.ray.io,roles"
    assert kubectl("get", kinds, "-o", "name").split() == []
    kept = kubectl("get", "pvc,secrets", "-l", f"app.kubernetes.io/instance={RELEASE}", "-o", "name").split()
    print("kept:", ", ".join(kept), flush=True)
    assert kept
    assert all("keys" in one or "store" in one or "postgres" in one or "token" in one for one in kept)
    command(program("KUBECTL"), "delete", "namespace", NAMESPACE, "--wait")
