"""charts/generate.py: schema and table from values.yaml, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

CHARTS = Path(__file__).resolve().parents[2] / "charts"
VALUES = """# Comments before.

# -- How many.
# @schema {"minimum": 1}
gateways: 1
# -- Nested, which
# goes on here.
storage:
  # -- One | two.
  size: 5Gi
  # -- Anything of Kubernetes.
  # @schema {"open": true}
  resources:
    limits: {cpu: "1"}
# -- Of each pool.
defaults:
  # -- GPUs.
  gpus: 0
# -- By name.
# @schema {"values": "defaults"}
pools:
  # -- The first.
  cpu: {}
"""


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("chart_generate", CHARTS / "generate.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def small(tmp_path):
    (tmp_path / "values.yaml").write_text(VALUES, encoding="utf-8")
    return tmp_path


def test_types_follow_from_the_defaults_and_all_is_closed_but_what_is_open(generate, small):
    made = generate.schema(generate.Values(small / "values.yaml"))
    assert made["additionalProperties"] is False
    assert made["properties"]["gateways"] == {"description": "How many.", "type": "integer", "minimum": 1}
    storage = made["properties"]["storage"]
    assert storage["description"] == "Nested, which goes on here."
    assert storage["additionalProperties"] is False
    assert storage["properties"]["resources"] == {"description": "Anything of Kubernetes.", "type": "object"}
    assert set(made["properties"]["pools"]["additionalProperties"]["properties"]) == {"gpus"}
    assert made["properties"]["enabled"]["type"] == "boolean"


def test_the_table_has_a_row_for_every_value(generate, small):
    rows = generate.table(generate.Values(small / "values.yaml")).splitlines()[2:]
    assert rows[0] == "| `gateways` | `1` | How many. |"
    assert '| `storage.size` | `"5Gi"` | One \\| two. |' in rows
    assert [row.split("`")[1] for row in rows] == [
        "gateways", "storage", "storage.size", "storage.resources", "defaults", "defaults.gpus", "pools",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gateways: 1\n", "gateways has no comment"),
        ("# -- A map.\na:\n  b: 1\n", "a.b has no comment"),
        ("# -- Nothing.\na: null\n", "a has the default None"),
    ],
)
def test_a_value_that_says_too_little_is_refused(generate, small, text, said):
    (small / "values.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        generate.schema(generate.Values(small / "values.yaml"))


def test_every_chart_is_what_its_values_say(generate):
    charts = [path.parent for path in CHARTS.glob("*/Chart.yaml")]
    assert charts
    for chart in charts:
        for path, text in generate.made(chart).items():
            assert path.read_text(encoding="utf-8") == text, path
            assert path.suffix != ".json" or json.loads(text)
