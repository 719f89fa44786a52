"""What was made once stays: an upgrade finds the Secrets of the installation by asking the cluster."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

OWNED = {  # what Helm writes, and what an uninstallation leaves on an object that is kept
    "labels": {"app.kubernetes.io/managed-by": "Helm"},
    "annotations": {"meta.helm.sh/release-name": "espalier", "meta.helm.sh/release-namespace": "models"},
}
GONE = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}


def discovery(objects):
    """Returns what an API server that knows these objects' kinds tells about itself, by path."""
    kinds = {(one["apiVersion"], one["kind"]) for one in objects}
    versions = sorted({version for version, _ in kinds})
    known = {
        "/version": {"major": "1", "minor": "35", "gitVersion": "v1.35.4"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {
            "kind": "APIGroupList",
            "groups": [
                {"name": one.split("/")[0], "versions": [{"groupVersion": one, "version": one.split("/")[1]}]}
                for one in versions
                if "/" in one
            ],
        },
    }
    for version in versions:
        resources = [
            {"name": f"{kind.lower()}s", "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get"]}
            for one, kind in sorted(kinds)
            if one == version
        ]
        path = f"/apis/{version}" if "/" in version else f"/api/{version}"
        known[path] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
    return known


@pytest.fixture
def cluster(chart, tmp_path):
    """Serves as much of the API as helm asks for; yields a kubeconfig and the Secrets that there are."""
    there = {}
    known = discovery(chart().all)

    class Api(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0]
            folder, _, name = path.rpartition("/")
            found = known.get(path)
            if folder == "/api/v1/namespaces/models/secrets" and name in there:
                data = {key: base64.b64encode(value.encode()).decode() for key, value in there[name].items()}
                found = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name, **OWNED}, "data": data}
            body = json.dumps(found or GONE).encode()
            self.send_response(200 if found else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        "users": [{"name": "fake", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config), encoding="utf-8")
    yield tmp_path / "kubeconfig", there
    server.shutdown()
    server.server_close()


def secrets(objects):
    return {name: one["stringData"] for name, one in objects.of("Secret").items()}


def test_an_upgrade_makes_no_new_secrets(chart, cluster):
    kubeconfig, there = cluster
    there.update(secrets(chart.upgraded(kubeconfig)))
    assert set(there) == {"espalier-keys", "espalier-ray-token", "espalier-postgres"}
    assert secrets(chart.upgraded(kubeconfig)) == there


def test_one_that_is_gone_is_made_again_and_the_others_stay(chart, cluster):
    kubeconfig, there = cluster
    first = secrets(chart.upgraded(kubeconfig))
    there.update({name: data for name, data in first.items() if name != "espalier-keys"})
    second = secrets(chart.upgraded(kubeconfig))
    assert second.pop("espalier-keys") != first.pop("espalier-keys")
    assert second == first
