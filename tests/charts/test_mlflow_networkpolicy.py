from __future__ import annotations


def test_it_is_open_to_the_release_and_to_declared_peers(chart):
    peers = [{"namespaceSelector": {"matchLabels": {"team": "science"}}}]
    values = {"networkPolicy": {"mlflowClients": peers}}
    spec = chart(values, ci="restricted").one("NetworkPolicy", "espalier-mlflow")["spec"]
    (rule,) = spec["ingress"]
    assert rule["ports"] == [{"port": 5000}]
    assert len(rule["from"]) == 5
    assert rule["from"][-1:] == peers
    assert [[port["port"] for port in one["ports"]] for one in spec["egress"]] == [[53, 53], [5432]]


def test_without_mlflow_there_is_none(chart):
    policies = chart({"networkPolicy": {"enabled": True}}, ci="existing-postgres").of("NetworkPolicy")
    assert "espalier-mlflow" not in policies
    assert "espalier-postgres" not in policies
