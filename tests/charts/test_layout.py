"""The chart's own laws: one resource and one test per template, one version, names from helpers only."""

from __future__ import annotations

import base64
import gzip
import tomllib
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "espalier"
TEMPLATES = sorted((CHART / "templates").glob("*/*.yaml"))


def test_every_template_has_a_test_and_one_resource():
    assert len(TEMPLATES) > 25
    for path in TEMPLATES:
        text = path.read_text(encoding="utf-8")
        assert text.count("\nkind: ") == 1, path
        assert (Path(__file__).parent / f"test_{path.parent.name}_{path.stem}.py").is_file(), path


def test_labels_and_names_come_from_helpers():
    for path in TEMPLATES:
        text = path.read_text(encoding="utf-8")
        assert 'include "espalier.labels"' in text, path
        assert ".Release.Name }}-" not in text, path


def test_chart_and_platform_have_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chart = YAML(typ="safe").load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == project["version"]


def test_a_release_fits_its_secret(chart, ci):
    files = [path.read_bytes() for path in CHART.rglob("*") if path.is_file() and path.parent.name != "ci"]
    manifest = str(chart(ci=ci).all).encode()
    kept = base64.b64encode(gzip.compress(base64.b64encode(b"".join(files)) + manifest))  # as Helm keeps it, about
    assert len(kept) < 400_000  # Kubernetes takes 1 MiB
