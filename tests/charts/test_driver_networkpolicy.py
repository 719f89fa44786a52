from __future__ import annotations


def test_nothing_reaches_the_driver_and_it_reaches_what_it_drives(chart):
    spec = chart(ci="restricted").one("NetworkPolicy", "espalier-driver")["spec"]
    assert spec["ingress"] == []
    assert [[port["port"] for port in rule.get("ports", ())] for rule in spec["egress"]] == [
        [8265], [8000, 8265], [53, 53], [443, 6443], [5432], [5000], [443],
    ]  # fmt: skip
