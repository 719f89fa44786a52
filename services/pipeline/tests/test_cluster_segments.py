"""Segments of a spec, the pools that they run on, and the RayJobs that they become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from espalier_pipeline.cluster.access import Installation
from espalier_pipeline.cluster.segments import Segment, identity_of, job_name, ray_job, waves
from espalier_runtime.specs import Spec, load_spec
from espalier_sdk.errors import SpecError

SPEC = """
name: support-triage
objective: {task: {name: classification, config: {text: message, target: queue}}, metric: macro_f1}
data: {tickets: {sources: [{name: files, config: {paths: [t.csv]}}], split: {by: hash, test: 0.2, validation: 0.1}}}
candidates:
  small: {strategy: from-scratch}
  large: {strategy: full-finetune, base: minilm, where: {workers: 4, gpus_per_worker: 1}}
  policy: {strategy: full-finetune, base: {from: large}, where: {workers: 2, gpus_per_worker: 1}}
  other: {strategy: full-finetune, base: minilm, where: {pool: spare, workers: 2}}
"""
GROUP = {"groupName": "workers", "replicas": 2, "maxReplicas": 2, "template": {"spec": {}}}
CLUSTER = {"headGroupSpec": {"template": {"spec": {}}}, "workerGroupSpecs": [GROUP]}
POOLS = {
    "cpu": {"gpus": 0, "rayClusterSpec": {"headGroupSpec": {}}},
    "a100": {"gpus": 2, "rayClusterSpec": CLUSTER},
    "spare": {"gpus": 0, "rayClusterSpec": CLUSTER},
}
SETTINGS = {
    "release": "e",
    "preRunningDeadlineSeconds": 600,
    "activeDeadlineSeconds": 86400,
    "ttlSecondsAfterFinished": 600,
    "labels": {"kueue.x-k8s.io/queue-name": "training"},
}
OWNER = {"kind": "Job", "name": "j", "uid": "u-1"}


def installation(pools: dict[str, Any] = POOLS) -> Installation:
    return Installation(driver={}, pools=pools, settings=SETTINGS)


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return written(tmp_path, SPEC)


def written(folder: Path, text: str) -> Spec:
    path = folder / "spec.yaml"
    path.write_text(text)
    return load_spec(path)[0]


def test_on_cpus_all_stages_are_one_segment(tmp_path: Path) -> None:
    text = "\n".join(line for line in SPEC.splitlines() if "where" not in line)
    assert waves(written(tmp_path, text), installation()) == [[Segment("all", "cpu")]]


def test_candidates_of_other_pools_come_after_the_data_and_after_those_they_refer_to(spec: Spec) -> None:
    first, second, third, last = waves(spec, installation())
    assert first == [Segment("data", "cpu", ("--only", "preprocess"))]
    assert second == [
        Segment("c-large", "a100", ("--only", "train", "--candidate", "large"), workers=2),
        Segment("c-other", "spare", ("--only", "train", "--candidate", "other"), workers=2),
    ]
    assert third == [Segment("c-policy", "a100", ("--only", "train", "--candidate", "policy"), workers=1)]
    assert last == [Segment("rest", "cpu")]


def test_a_pool_that_there_is_not_is_named_with_those_that_there_are(spec: Spec) -> None:
    with pytest.raises(SpecError, match="there is no pool 'spare'") as caught:
        waves(spec, installation({name: POOLS[name] for name in ("cpu", "a100")}))
    assert caught.value.problems[0].accepted == "a100, cpu"


def test_gpus_where_no_pool_has_any_are_refused(tmp_path: Path) -> None:
    text = "\n".join(line for line in SPEC.splitlines() if "other" not in line)
    with pytest.raises(SpecError, match="wants GPUs, and no pool has any"):
        waves(written(tmp_path, text), installation({"cpu": POOLS["cpu"]}))


def test_more_workers_than_a_pool_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="needs 3 pods of pool a100, which has 2"):
        waves(written(tmp_path, SPEC.replace("workers: 4", "workers: 5")), installation())


def test_a_ray_job_starts_its_segment_with_the_workers_that_the_spec_asks_for() -> None:
    segment = Segment("c-large", "a100", ("--only", "train", "--candidate", "large"), workers=1)
    made = ray_job("triage-0123456789", segment, 1, installation=installation(), owner=OWNER, sha256="ab")
    assert made["metadata"]["name"] == "triage-0123456789-c-large-r1"
    assert made["metadata"]["ownerReferences"] == [OWNER]
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    head = made["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    for labelled in (made, head, made["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]):
        assert labelled["metadata"]["labels"]["espalier.dev/submission"] == "triage-0123456789"
    (group,) = made["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (1, 1, 1)
    assert made["spec"]["entrypoint"] == (
        "python -m espalier_pipeline.cluster.segment triage-0123456789 ab u-1 c-large 1 --only train --candidate large"
    )
    assert (made["spec"]["submissionMode"], made["spec"]["backoffLimit"]) == ("HTTPMode", 0)
    assert POOLS["a100"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] == 2  # type: ignore[index]


def test_names_stay_within_what_kuberay_takes() -> None:
    identity = identity_of("a-very-long-name-of-a-pipeline-that-some", "f" * 64)
    longest = job_name(identity, Segment("c-" + "x" * 60, "a100"), 12)
    assert len(longest) <= 47
    assert job_name(identity, Segment("c-" + "x" * 59 + "y", "a100"), 12) != longest
    for length in range(1, 20):
        assert len(job_name(identity, Segment("c" * length, "a100"), 5)) <= 47
    assert identity_of("2024-triage-", "f" * 64) == "run-2024-triage-ffffffffff"


def test_what_a_candidate_of_another_pool_refers_to_is_trained_before_it_on_its_own(tmp_path: Path) -> None:
    text = SPEC.replace("base: {from: large}", "base: {from: small}")
    _, second, third, _ = waves(written(tmp_path, text), installation())
    assert [segment.name for segment in second] == ["c-small", "c-large", "c-other"]
    assert (second[0].pool, second[0].workers) == ("cpu", 0)
    assert [segment.name for segment in third] == ["c-policy"]


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("gpus_per_worker: 3", "wants 3 GPUs per worker, and a pod of pool a100 has 2"),
        ("workers: 3, gpus_per_worker: 2", "needs 3 pods of pool a100, which has 2"),
    ],
)
def test_a_worker_fits_into_one_pod(tmp_path: Path, where: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        waves(written(tmp_path, SPEC.replace("workers: 4, gpus_per_worker: 1", where)), installation())


def test_a_pool_without_workers_computes_on_its_head(tmp_path: Path) -> None:
    pools = {**POOLS, "spare": POOLS["cpu"]}
    _, second, *_ = waves(written(tmp_path, SPEC), installation(pools))
    assert next(one for one in second if one.pool == "spare").workers == 0


def test_a_learning_curve_of_another_pool_is_refused(tmp_path: Path) -> None:
    text = SPEC.replace("base: minilm, where: {pool: spare", "base: minilm, learning_curve: [0.5], where: {pool: spare")
    with pytest.raises(SpecError, match="its learning curve would be on cpu"):
        waves(written(tmp_path, text), installation())
