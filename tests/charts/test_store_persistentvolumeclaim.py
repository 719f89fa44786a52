from __future__ import annotations


def test_the_claim_is_kept_on_uninstall(chart):
    claim = chart().one("PersistentVolumeClaim", "espalier-store")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}}


def test_class_and_modes_are_values(chart):
    spec = chart(ci="gpu-pools").one("PersistentVolumeClaim", "espalier-store")["spec"]
    assert (spec["storageClassName"], spec["accessModes"]) == ("nfs", ["ReadWriteMany"])


def test_a_claim_of_the_users_or_an_object_store_takes_its_place(chart):
    objects = chart({"storage": {"claim": {"existingClaim": "mine"}}})
    assert not objects.of("PersistentVolumeClaim")
    assert {"name": "store", "persistentVolumeClaim": {"claimName": "mine"}} in objects.driver()["spec"]["volumes"]
    assert not chart(ci="s3").of("PersistentVolumeClaim")
