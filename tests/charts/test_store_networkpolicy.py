from __future__ import annotations


def test_the_sweeping_reaches_store_and_databases_only(chart):
    objects = chart(ci="restricted")
    spec = objects.one("NetworkPolicy", "espalier-gc")["spec"]
    assert spec["ingress"] == []
    assert [[port["port"] for port in rule["ports"]] for rule in spec["egress"]] == [[53, 53], [5432], [5000]]
    labels = objects.one("CronJob", "espalier-gc")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
