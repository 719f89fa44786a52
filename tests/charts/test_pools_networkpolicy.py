from __future__ import annotations


def test_segments_reach_each_other_and_the_declared_sources(chart):
    objects = chart(ci="restricted")
    spec = objects.one("NetworkPolicy", "espalier-segment")["spec"]
    assert [[port["port"] for port in rule.get("ports", ())] for rule in spec["ingress"]] == [[], [8265], [8080]]
    assert [[port["port"] for port in rule.get("ports", ())] for rule in spec["egress"]] == [
        [], [53, 53], [5432], [5000], [443],
    ]  # fmt: skip
    assert spec["egress"][-1]["to"][0]["ipBlock"]["cidr"] == "0.0.0.0/0"
    chosen = {key: value for key, value in spec["podSelector"]["matchLabels"].items() if not key.startswith("ray.io/")}
    for name, pod in objects.pod_templates():
        assert (chosen.items() <= pod["metadata"]["labels"].items()) == name.startswith("pool "), name
