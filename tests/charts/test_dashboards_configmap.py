from __future__ import annotations

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "charts" / "espalier" / "dashboards").glob("*.json"))


def queries(node):
    if isinstance(node, dict):
        if "expr" in node:
            yield node["expr"]
        for value in node.values():
            yield from queries(value)
    elif isinstance(node, list):
        for value in node:
            yield from queries(value)


def metrics_of(path):
    """Returns the names that a module gives to Counter, Gauge and Histogram."""
    kinds = ("Counter", "Gauge", "Histogram")
    calls = [one for one in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(one, ast.Call)]
    return {
        one.args[0].value
        for one in calls
        if (getattr(one.func, "id", None) or getattr(one.func, "attr", None)) in kinds and one.args
    }


def test_none_by_default_and_all_where_asked_for(chart):
    assert "espalier-dashboards" not in chart().of("ConfigMap")
    config = chart(ci="restricted").one("ConfigMap", "espalier-dashboards")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert sorted(config["data"]) == [path.name for path in DASHBOARDS]
    for name, text in config["data"].items():
        assert "\n" not in text, f"{name} is not minified"
        assert json.loads(text)["title"]


def test_every_metric_of_the_gateway_is_one_that_it_counts():
    counted = metrics_of(ROOT / "services" / "serving" / "src" / "espalier_serving" / "meters.py")
    assert len(counted) == 7
    text = " ".join(query for path in DASHBOARDS for query in queries(json.loads(path.read_text(encoding="utf-8"))))
    named = set(re.findall(r"ray_(espalier_[a-z_]+?)(?:_bucket|_count|_sum)?(?=[\[{)\s])", text))
    assert named == counted


def test_every_other_metric_is_one_of_rays_own():
    import ray

    folder = Path(ray.__file__).parent
    known = (folder / "dashboard" / "modules" / "metrics" / "dashboards").glob("*_panels.py")
    text = " ".join(path.read_text(encoding="utf-8") for path in known)
    named = {
        name
        for path in DASHBOARDS
        for query in queries(json.loads(path.read_text(encoding="utf-8")))
        for name in re.findall(r"\bray_[a-z_]+", query)
        if not name.startswith("ray_espalier_")
    }
    assert len(named) > 5
    assert not [name for name in named if name not in text]
