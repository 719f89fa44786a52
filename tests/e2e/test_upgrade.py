"""The endpoint's pods are upgraded under load where there is room for two Ray clusters: no request fails."""

from __future__ import annotations

import time
from pathlib import Path

from .conftest import (
    CHART,
    NAMESPACE,
    RELEASE,
    command,
    get,
    helm,
    kubectl,
    load,
    program,
    wait_for_endpoint,
    wait_until,
)

VALUES = Path(__file__).with_name("two-clusters-values.yaml")


def test_an_upgrade_under_load_fails_no_request() -> None:
    command(program("KUBECTL"), "create", "namespace", NAMESPACE)
    helm("install", RELEASE, CHART, "-f", VALUES)
    wait_for_endpoint()
    helm("test", RELEASE, "--timeout", "10m")
    before = _active()
    with load("demo", "my parcel never came", during="an upgrade"):
        helm("upgrade", RELEASE, CHART, "-f", VALUES, "--set-string", "extraEnv.CHANGED=1")
        switched = wait_until("the new cluster serves", lambda: _active() not in ("", before), seconds=900, step=2)
        gone = f"raycluster/{before}"
        wait_until("the old cluster is gone", lambda: not kubectl("get", gone, "-o", "name", check=False), seconds=300)
        time.sleep(10)
    print(f"switched after {switched:.0f} s", flush=True)
    helm("uninstall", RELEASE, "--wait")
    command(program("KUBECTL"), "delete", "namespace", NAMESPACE, "--wait")


def _active() -> str:
    status = get(f"rayservice/{RELEASE}").get("status") or {}
    return str((status.get("activeServiceStatus") or {}).get("rayClusterName", ""))
