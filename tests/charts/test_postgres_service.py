from __future__ import annotations


def test_it_selects_the_servers_pod(chart):
    objects = chart()
    service = objects.one("Service", "espalier-postgres")["spec"]
    assert service["ports"] == [{"name": "postgres", "port": 5432, "targetPort": "postgres"}]
    labels = objects.one("StatefulSet", "espalier-postgres")["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
