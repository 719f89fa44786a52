from __future__ import annotations


def test_there_is_none_by_default(chart):
    assert not chart().of("Ingress")


def test_it_leads_to_the_gateway_with_tls(chart):
    ingress = chart(ci="restricted").one("Ingress", "espalier")
    spec = ingress["spec"]
    assert spec["ingressClassName"] == "nginx"
    assert spec["tls"] == [{"hosts": ["models.example.com"], "secretName": "models-tls"}]
    (rule,) = spec["rules"]
    assert rule["host"] == "models.example.com"
    assert rule["http"]["paths"][0]["backend"] == {"service": {"name": "espalier-serve-svc", "port": {"number": 8000}}}
    assert ingress["metadata"]["annotations"] == {"nginx.ingress.kubernetes.io/proxy-read-timeout": "300"}
