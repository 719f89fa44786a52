from __future__ import annotations


def test_only_pods_of_the_release_reach_it_and_it_reaches_nothing(chart):
    spec = chart(ci="restricted").one("NetworkPolicy", "espalier-postgres")["spec"]
    (rule,) = spec["ingress"]
    names = {peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in rule["from"]}
    assert names == {"driver", "segment", "serving", "mlflow", "gc"}
    assert rule["ports"] == [{"port": 5432}]
    assert spec["egress"] == []
