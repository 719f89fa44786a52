from __future__ import annotations


def test_data_lie_in_a_subfolder_of_the_volume(chart, environment):
    spec = chart().one("StatefulSet", "espalier-postgres")["spec"]
    found = environment(spec["template"])
    assert found["PGDATA"] == "/var/lib/postgresql/data/pgdata"
    assert found["POSTGRES_PASSWORD"] == {"secretKeyRef": {"name": "espalier-postgres", "key": "password"}}
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}


def test_what_it_writes_is_a_volume(chart):
    (container,) = chart().one("StatefulSet", "espalier-postgres")["spec"]["template"]["spec"]["containers"]
    paths = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert paths == {"/var/lib/postgresql/data", "/var/run/postgresql", "/tmp"}


def test_no_version_is_in_the_selector_since_that_would_block_upgrades(chart):
    selector = chart().one("StatefulSet", "espalier-postgres")["spec"]["selector"]["matchLabels"]
    assert set(selector) == {
        "app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component",
    }  # fmt: skip


def test_another_database_takes_its_place(chart):
    for ci in ("minimal", "existing-postgres", "gitops"):
        assert not chart(ci=ci).of("StatefulSet")
