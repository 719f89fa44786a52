"""Why a pod waits, from what the API says of it. The messages are those of Kubernetes 1.35."""

from __future__ import annotations

from typing import Any

import pytest
from espalier_pipeline.cluster.pending import why_refused, why_waiting


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "head"}, "status": {"phase": "Pending", **status}}


def unscheduled(message: str) -> dict[str, Any]:
    return pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}])


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return pod(containerStatuses=[{"image": "espalier/torch:9", "state": state}])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (unscheduled("0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."), "enough cpu and memory"),
        (unscheduled("0/4 nodes are available: 3 Insufficient nvidia.com/gpu."), "enough nvidia.com/gpu"),
        (unscheduled("0/2 nodes are available: 2 node(s) had untolerated taint {a: b}."), "selector and tolerations"),
        (
            unscheduled("0/5 nodes: pod has unbound immediate PersistentVolumeClaims. not found"),
            "storage class",
        ),
        (
            unscheduled(
                "0/4 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity, "
                "2 node(s) didn't match Pod's node affinity/selector."
            ),
            "cannot mount the claim's volume: shared storage, or storage.s3",
        ),
        (unscheduled("0/2 nodes are available: 2 node(s) had volume node affinity conflict."), "cannot mount"),
        (waiting("ErrImageNeverPull"), "image espalier/torch:9 cannot be had"),
        (waiting("ImagePullBackOff"), "imagePullSecrets"),
        (waiting("CreateContainerConfigError", 'secret "x" not found'), 'secret "x" not found'),
    ],
)
def test_what_a_pod_waits_for_is_one_sentence(given: dict[str, Any], said: str) -> None:
    sentence = why_waiting(given)
    assert sentence is not None
    assert said in sentence
    assert sentence.startswith("head waits: ")
    assert "\n" not in sentence


def test_a_volume_that_does_not_come_is_told_by_an_event() -> None:
    event = {"reason": "FailedMount", "message": "MountVolume.SetUp failed: no such device"}
    assert why_waiting(waiting("ContainerCreating"), [event]) == f"head waits for its volume: {event['message']}"


@pytest.mark.parametrize("given", [waiting("ContainerCreating"), pod(phase="Running"), pod()])
def test_a_pod_that_only_starts_waits_for_nothing(given: dict[str, Any]) -> None:
    assert why_waiting(given) is None


def test_a_quota_is_told_with_its_figures() -> None:
    message = (
        'Error creating: pods "x" is forbidden: exceeded quota: small, requested: requests.cpu=1500m, used: '
        "requests.cpu=0, limited: requests.cpu=1"
    )
    told = why_refused([{"reason": "FailedCreate", "message": message}])
    assert told is not None
    assert "quota is used up (exceeded quota: small, requested: requests.cpu=1500m" in told


def test_a_refusal_by_pod_security_is_told() -> None:
    message = 'Failed to create head Pod: pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot'
    told = why_refused([{"reason": "FailedToCreateHeadPod", "message": message}])
    assert told == 'no pod can be made: violates PodSecurity "restricted:latest": runAsNonRoot'


@pytest.mark.parametrize(
    "event",
    [
        {"reason": "Created", "message": "Created pod x"},
        {"reason": "FailedToCreateRayCluster", "message": 'rayclusters.ray.io "x" already exists'},
    ],
)
def test_other_events_are_no_refusal(event: dict[str, Any]) -> None:
    assert why_refused([event]) is None
