"""`helm lint --strict` judges metadata and schema; not templates, since it knows no API versions beside Helm's."""

from __future__ import annotations


def test_helm_finds_nothing_to_warn_of(chart, ci):
    said = chart.lint(ci)
    assert "0 chart(s) failed" in said
    assert "[WARNING]" not in said
    assert "[ERROR]" not in said
