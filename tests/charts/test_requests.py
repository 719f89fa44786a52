"""What is requested by default and by `ci/minimal`, added up: whether a node of four or two cores is enough."""

from __future__ import annotations

import re

import pytest

_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def cores(quantity):
    return float(quantity[:-1]) / 1000 if str(quantity).endswith("m") else float(quantity)


def size_bytes(quantity):
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(quantity)).groups()
    return float(number) * _UNITS[unit]


def requested(objects):
    """Returns cores and bytes of all pods at once: one segment in the pool cpu, one driver, the sweeping too."""
    cpu = memory = 0.0
    for name, pod in objects.pod_templates():
        if name.startswith("Pod/"):
            continue  # the helm test, which runs when nothing else does
        asked = [one["resources"]["requests"] for one in pod["spec"]["containers"]]
        initial = [one["resources"]["requests"] for one in pod["spec"].get("initContainers", ())]
        cpu += max(sum(cores(one["cpu"]) for one in asked), *(cores(one["cpu"]) for one in initial), 0)
        memory += max(
            sum(size_bytes(one["memory"]) for one in asked), *(size_bytes(one["memory"]) for one in initial), 0
        )
    return cpu, memory


@pytest.mark.parametrize(("way", "most_cores"), [(None, 3.2), ("minimal", 1.7)])
def test_all_pods_with_a_segment_fit(chart, way, most_cores):
    objects = chart(ci=way)
    assert set(objects.pools()) == {"cpu"}
    cpu, memory = requested(objects)
    assert 1.0 < cpu <= most_cores
    assert memory <= 6 * 2**30
