"""Every pod, whoever makes it, in every way of installing: the restricted profile, and what Helm 4 refuses."""

from __future__ import annotations

import json

RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}


def test_every_pod_is_restricted(chart, ci):
    pods = list(chart(ci=ci).pod_templates())
    assert len(pods) >= 5
    for name, pod in pods:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in [*spec["containers"], *spec.get("initContainers", ())]:
            assert container["securityContext"] == RESTRICTED, f"{name}: {container['name']}"
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], name


def test_only_what_calls_the_api_gets_a_token(chart, ci):
    objects = chart(ci=ci)
    given = {name for name, pod in objects.pod_templates() if pod["spec"]["automountServiceAccountToken"]}
    assert given == {"driver"} | ({"RayService/espalier head"} if ci == "s3" else set())


def test_no_user_id_is_in_the_templates(chart):
    with_ids = {name for name, pod in chart().pod_templates() if "runAsUser" in pod["spec"]["securityContext"]}
    assert with_ids == {"StatefulSet/espalier-postgres"}
    for name, pod in chart(ci="openshift").pod_templates():
        assert set(pod["spec"]["securityContext"]) == {"runAsNonRoot", "seccompProfile"}, name


def test_no_image_is_latest_and_none_is_pulled_needlessly(chart, ci):
    images = [
        (container["image"], container["imagePullPolicy"])
        for _, pod in chart(ci=ci).pod_templates()
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]
    ]
    for image, policy in images:
        assert policy == "IfNotPresent"
        assert "@sha256:" in image or not image.endswith((":latest", ":"))


def test_a_mirror_serves_all_images(chart):
    values = {"global": {"imageRegistry": "mirror.example.com"}}
    for name, pod in chart(values).pod_templates():
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]:
            assert container["image"].startswith("mirror.example.com/"), name


def test_every_variable_has_one_entry(chart, ci, environment):
    for _, pod in chart(ci=ci).pod_templates():
        for place, container in enumerate(pod["spec"]["containers"]):
            assert "env" not in container or environment(pod, place)


def test_only_the_demo_and_the_helm_test_get_the_administrators_key(chart, ci):
    for name, pod in chart(ci=ci).pod_templates():
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]:
            has = "ESPALIER_ADMIN_KEY" in json.dumps(container.get("env", []))
            assert has == (container["name"] in ("prepare", "ask")), f"{name}: {container['name']}"


def test_pods_on_a_claim_of_one_host_follow_each_other(chart):
    objects = chart()
    mounting = {
        name
        for name, pod in objects.pod_templates()
        if any("persistentVolumeClaim" in volume for volume in pod["spec"]["volumes"])
    }
    assert len(mounting) == 6  # head, worker, MLflow, collection, pool, driver
    for name, pod in objects.pod_templates():
        if name not in mounting:
            assert "affinity" not in pod["spec"]
            continue
        (term,) = pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        labels = pod["metadata"]["labels"]
        assert all(labels[key] == value for key, value in term["labelSelector"]["matchLabels"].items()), name


def test_shared_storage_binds_no_pod_to_a_host(chart):
    for ci in ("gpu-pools", "s3"):
        assert not [name for name, pod in chart(ci=ci).pod_templates() if "affinity" in pod["spec"]]


def test_a_wish_for_a_place_is_added_to_the_claims(chart):
    wish = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    driver = chart({"driver": {"affinity": wish}}).driver()
    assert set(driver["spec"]["affinity"]) == {"nodeAffinity", "podAffinity"}
