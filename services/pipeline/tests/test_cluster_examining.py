"""What `doctor -n` computes: quantities, what a submission requests, and how plugins differ."""

from __future__ import annotations

from typing import Any

import pytest
from espalier_pipeline.cluster.examining import amount_of, differences, lacking, requests_of
from espalier_runtime.plugins import Plugins


@pytest.mark.parametrize(
    ("text", "amount"), [("500m", 0.5), ("2", 2), ("1Gi", 2**30), ("1500Mi", 1500 * 2**20), ("3G", 3e9), ("0", 0)]
)
def test_quantities_are_numbers(text: str, amount: float) -> None:
    assert amount_of(text) == amount


def test_kinds_and_fields_of_kuberay_that_are_not_there_are_named() -> None:
    def kind(*fields: str) -> dict[str, Any]:
        return {"properties": {"spec": {"properties": {name: {} for name in fields}}}}

    whole = {
        "io.ray.v1.RayCluster": kind("authOptions", "headGroupSpec"),
        "io.ray.v1.RayJob": kind("preRunningDeadlineSeconds"),
        "io.ray.v1.RayService": kind("rayClusterDeletionDelaySeconds"),
    }
    assert lacking(whole) == []
    assert lacking({}) == ["RayCluster", "RayJob", "RayService"]
    older = whole | {"io.ray.v1.RayCluster": kind("headGroupSpec")}
    assert lacking(older) == ["RayCluster.spec.authOptions (an older KubeRay)"]


def test_requests_of_all_containers_are_summed() -> None:
    one: dict[str, Any] = {"resources": {"requests": {"cpu": "100m", "memory": "1Gi"}}}
    assert requests_of({"containers": [one, {"resources": {}}, one, {}]}) == {"cpu": 0.2, "memory": 2 * 2**30}


def test_plugins_that_differ_are_named_and_the_same_ones_are_not() -> None:
    plugins = Plugins()
    same = {(one.group, one.name): plugins.use(one.group, one.name).model_dump() for one in plugins.inventory()}
    assert list(differences(same)) == []
    group, name = next(key for key in sorted(same))
    other = {**same, (group, name): {**same[group, name], "sha256": "0" * 64}}
    (told,) = differences(other)
    assert told.startswith(f"{name}: ")
    assert "00000000 in the image" in told
    del other[group, name]
    (told,) = differences(other)
    assert told.endswith("is not in the image")
