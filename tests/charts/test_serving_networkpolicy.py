from __future__ import annotations


def ports(rules):
    return [[port["port"] for port in rule.get("ports", ())] for rule in rules]


def test_there_is_none_by_default(chart):
    assert not chart().of("NetworkPolicy")


def test_the_gateway_is_open_to_declared_peers_operator_driver_and_test(chart):
    objects = chart(ci="restricted")
    spec = objects.one("NetworkPolicy", "espalier-serving")["spec"]
    assert ports(spec["ingress"]) == [[], [8265], [8080], [8000]]
    operator, driver, test, client = spec["ingress"][3]["from"]
    assert operator["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}
    assert operator["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kuberay"}
    labels = objects.driver()["metadata"]["labels"]
    assert driver["podSelector"]["matchLabels"].items() <= labels.items()
    asking = objects.one("Pod", "espalier-test")["metadata"]["labels"]
    assert test["podSelector"]["matchLabels"].items() <= asking.items()
    assert client["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "ingress-nginx"}


def test_its_pods_reach_each_other_and_what_they_need(chart):
    spec = chart(ci="restricted").one("NetworkPolicy", "espalier-serving")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert ports(spec["egress"]) == [[], [53, 53], [5432], [5000]]
    assert spec["ingress"][0] == {"from": spec["egress"][0]["to"]}


def test_a_scaling_head_reaches_the_api_server_and_an_object_store_is_open(chart):
    spec = chart({"networkPolicy": {"enabled": True}}, ci="s3").one("NetworkPolicy", "espalier-serving")["spec"]
    assert ports(spec["egress"]) == [[], [53, 53], [5432], [443], [5000], [443, 6443]]


def test_a_database_and_redis_of_the_users_are_open(chart):
    spec = chart({"networkPolicy": {"enabled": True}}, ci="existing-postgres")
    assert ports(spec.one("NetworkPolicy", "espalier-serving")["spec"]["egress"]) == [[], [53, 53], [5432], [6379]]


def test_the_policy_selects_the_pods_of_the_endpoint(chart):
    objects = chart(ci="restricted")
    chosen = objects.one("NetworkPolicy", "espalier-serving")["spec"]["podSelector"]["matchLabels"]
    assert chosen.pop("ray.io/is-ray-node") == "yes"
    for name, pod in objects.pod_templates():
        matches = chosen.items() <= pod["metadata"]["labels"].items()
        assert matches == name.startswith("RayService/"), name
