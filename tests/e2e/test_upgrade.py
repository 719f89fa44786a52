"""The endpoint's pods are upgraded under load where there is room for two Ray clusters: no request fails.

Part of `make e2e`; E2E_RATE (50) is the requests per second. The load comes from a pod, through the Service, as a
user's would: what a port forwards stays with one pod and ends with it.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from .conftest import CHART, NAMESPACE, RELEASE, command, get, helm, kubectl, program, wait_for_endpoint, wait_until

VALUES = Path(__file__).with_name("two-clusters-values.yaml")
RATE = os.environ.get("E2E_RATE", "50")


def test_an_upgrade_under_load_fails_no_request() -> None:
    command(program("KUBECTL"), "create", "namespace", NAMESPACE)
    helm("install", RELEASE, CHART, "-f", VALUES)
    wait_for_endpoint()
    helm("test", RELEASE, "--timeout", "10m")
    _start_load()
    before = _active()
    wait_until("the load is on", lambda: _seen()["answered"] > 100, seconds=120)
    begun, already = time.monotonic(), _seen()["answered"]
    helm("upgrade", RELEASE, CHART, "-f", VALUES, "--set-string", "extraEnv.CHANGED=1")
    switched = wait_until("the new cluster serves", lambda: _active() not in ("", before), seconds=900, step=2)
    gone = f"raycluster/{before}"
    wait_until("the old cluster is gone", lambda: not kubectl("get", gone, "-o", "name", check=False), seconds=300)
    time.sleep(10)
    seen = _seen()
    rate = (seen["answered"] - already) / (time.monotonic() - begun)
    print(f"upgrade under {rate:.0f} requests per second, switched after {switched:.0f} s: {seen}", flush=True)
    assert seen["failed"] == 0, kubectl("logs", "load", "--tail=2000")[-3000:]
    kubectl("delete", "pod", "load", "--grace-period=1")
    helm("uninstall", RELEASE, "--wait")
    command(program("KUBECTL"), "delete", "namespace", NAMESPACE, "--wait")


def _active() -> str:
    status = get(f"rayservice/{RELEASE}").get("status") or {}
    return str((status.get("activeServiceStatus") or {}).get("rayClusterName", ""))


def _seen() -> dict[str, int]:
    counts = [line for line in kubectl("logs", "load", "--tail=50", check=False).splitlines() if line.startswith("{")]
    found: dict[str, int] = json.loads(counts[-1]) if counts else {"answered": 0, "failed": 0}
    return found


def _start_load() -> None:
    """Starts the pod that asks, in the image that the release's head has."""
    head = get("pods", "-l", "ray.io/node-type=head")["items"][0]["spec"]["containers"][0]
    script = Path(__file__).with_name("load.py").read_text(encoding="utf-8")
    url = f"http://{RELEASE}-serve-svc:8000"
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "load"},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "load",
                    "image": head["image"],
                    "command": ["python", "-c", script, url, "demo", RATE],
                    "env": [
                        {
                            "name": "ESPALIER_KEY",
                            "valueFrom": {"secretKeyRef": {"name": f"{RELEASE}-keys", "key": "admin"}},
                        }
                    ],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
    command(program("KUBECTL"), "-n", NAMESPACE, "apply", "-f", "-", input=json.dumps(pod))
    kubectl("wait", "pod/load", "--for=condition=Ready", "--timeout=120s")
