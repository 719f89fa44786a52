"""Why a pod does not run yet, in a sentence. Reads what the API says of pods and events; asks nothing itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable")
_REFUSED = ("FailedCreate", "FailedToCreateHeadPod", "FailedToCreateWorkerPod", "FailedToCreateRayCluster")
_SCARCE = re.compile(r"Insufficient ([\w./-]+)")
_OF_A_VOLUME = re.compile(r"PersistentVolume's node affinity|volume node affinity conflict")  # the older words last
_ATTACH = ("FailedMount", "FailedAttachVolume", "FailedBinding", "ProvisioningFailed")


def why_waiting(pod: Mapping[str, Any], events: Iterable[Mapping[str, Any]] = ()) -> str | None:
    """Returns a sentence on what a pod waits for, with what to do about it; None where nothing holds it up."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if status.get("phase") not in (None, "Pending"):
        return None
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{name} waits: {_unschedulable(condition.get('message', ''))}"
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _IMAGE:
            return (
                f"{name} waits: image {container['image']} cannot be had: see its name and tag, imagePullSecrets, "
                "and whether the node reaches its registry"
            )
        if waiting.get("reason") in ("CreateContainerConfigError", "CreateContainerError", "CrashLoopBackOff"):
            return f"{name} waits: {waiting['reason']}: {waiting.get('message', 'see its log')}"
    for event in events:
        if event.get("reason") in _ATTACH:
            return f"{name} waits for its volume: {event.get('message', event['reason'])}"
    return None


def why_refused(events: Iterable[Mapping[str, Any]]) -> str | None:
    """Returns a sentence on why no pod could be made, from the events of its owner; None where none says so."""
    for event in events:
        if event.get("reason") in _REFUSED or str(event.get("reason", "")).startswith("Invalid"):
            message = str(event.get("message", ""))
            if "already exists" in message:  # the operator looked before it knew of its own
                continue
            if "exceeded quota" in message:
                return f"no pod can be made: the namespace's quota is used up ({_tail(message)}): ask for more, or wait"
            return f"no pod can be made: {_tail(message)}"
    return None


def _unschedulable(message: str) -> str:
    scarce = sorted(set(_SCARCE.findall(message)))
    if scarce:
        what = " and ".join(scarce)
        return f"no node has enough {what} free: end what else runs, lower the pool's requests, or add a node"
    if "persistentvolumeclaim" in message.lower():
        return f"its claim is not bound: see the storage class ({message})"
    if _OF_A_VOLUME.search(message):
        return f"the nodes of its pool cannot mount the claim's volume: shared storage, or storage.s3 ({message})"
    if "taint" in message or "node selector" in message or "node(s) didn't match" in message:
        return f"no node fits the pool's selector and tolerations ({message})"
    return message or "the scheduler has not looked yet"


def _tail(message: str) -> str:
    """Returns the end of a message that quotes others, which is where the reason stands."""
    return message.split(" is forbidden: ")[-1][-300:]
