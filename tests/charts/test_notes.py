from __future__ import annotations


def test_notes_say_how_to_prove_ask_and_submit(chart, tmp_path):
    said = chart.notes(tmp_path)
    for line in (
        "helm test espalier -n models",
        "kubectl get secret espalier-keys -n models",
        "kubectl port-forward -n models svc/espalier-serve-svc 8000:8000",
        "espalier submit spec.yaml -n models",
        "NOTE  networkPolicy.enabled is false",
        "NOTE  no pool has GPUs",
    ):
        assert line in said, line


def test_notes_follow_the_values(chart, tmp_path):
    values = {
        "demo": {"enabled": False},
        "serving": {"ingress": {"enabled": True, "host": "models.example.com", "tlsSecret": "tls"}},
        "networkPolicy": {"enabled": True},
        "submitters": [{"kind": "User", "name": "ann"}],
    }
    said = chart.notes(tmp_path, values)
    assert "URL=https://models.example.com" in said
    assert "espalier-keys" in said
    assert '"model": "ENDPOINT"' in said
    assert "networkPolicy.enabled is false" not in said
    assert "submitters is empty" not in said
