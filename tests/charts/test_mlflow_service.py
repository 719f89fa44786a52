from __future__ import annotations


def test_it_selects_the_servers_pod(chart):
    objects = chart()
    service = objects.one("Service", "espalier-mlflow")["spec"]
    assert service["ports"] == [{"name": "http", "port": 5000, "targetPort": "http"}]
    labels = objects.one("Deployment", "espalier-mlflow")["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()


def test_without_mlflow_there_is_none(chart):
    assert "espalier-mlflow" not in chart(ci="minimal").of("Service")
