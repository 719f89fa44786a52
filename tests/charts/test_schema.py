"""values.schema.json: what it refuses and what it leaves open, as helm applies it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SCHEMA = Path(__file__).resolve().parents[2] / "charts" / "espalier" / "values.schema.json"


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"servign": {}}, "servign"),
        ({"serving": {"gatewys": 1}}, "gatewys"),
        ({"serving": {"gateways": 0}}, "gateways"),
        ({"serving": {"upgrade": "Rolling"}}, "upgrade"),
        ({"pools": {"a100": {"gpu": 1}}}, "gpu"),
        ({"pools": {"a100": {"gpus": "one"}}}, "gpus"),
        ({"submitters": [{"kind": "Team", "name": "a"}]}, "submitters"),
        ({"storage": {"claim": {"accessModes": []}}}, "accessModes"),
        ({"storage": {"claim": {"accessModes": ["ReadWriteOncePod"]}}}, "accessModes"),
    ],
)
def test_what_is_not_a_value_is_refused_by_name(chart, values, name):
    assert name in chart.refusal(values)


def test_a_chart_above_may_set_global_and_enabled_and_kubernetes_fragments_stay_open(chart):
    more = {"topologySpreadConstraints": [{"anything": 1}], "affinity": {"nodeAffinity": {"x": {}}}}
    chart({"enabled": True, "global": {"storageClass": "fast"}, "serving": {"workers": more}})


def test_the_schema_is_closed_wherever_it_names_properties():
    def closed(node, path):
        if "properties" in node:
            assert "additionalProperties" in node, path
            for key, value in node["properties"].items():
                closed(value, f"{path}.{key}")

    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    closed(schema, "")
    assert len(schema["properties"]) > 20
