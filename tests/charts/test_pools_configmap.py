from __future__ import annotations

import json


def test_submit_finds_it_by_its_label(chart):
    config = chart().one("ConfigMap", "espalier-pools")
    assert config["metadata"]["labels"]["espalier.dev/pools"] == "true"
    assert set(config["data"]) == {"driver.json", "pools.json", "settings.json"}


def test_the_pool_cpu_is_the_head_alone(chart):
    pool = chart().pools()["cpu"]
    assert (pool["gpus"], pool["image"]) == (0, "espalier/torch:0.1.0")
    cluster = pool["rayClusterSpec"]
    assert cluster["rayVersion"] == "2.60.0"
    assert cluster["authOptions"] == {"mode": "token", "secretName": "espalier-ray-token"}
    assert "workerGroupSpecs" not in cluster
    assert cluster["headGroupSpec"]["rayStartParams"] == {"dashboard-host": "0.0.0.0"}
    (ray,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert ray["resources"]["requests"] == {"cpu": "1500m", "memory": "2560Mi"}


def test_a_gpu_pool_has_a_small_head_and_workers_that_start_all_or_wait_all(chart):
    pool = chart(ci="gpu-pools").pools()["a100"]
    assert pool["gpus"] == 1
    head = pool["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert head["template"]["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "300m", "memory": "2Gi"}
    assert "tolerations" not in head["template"]["spec"]
    assert "nodeSelector" not in head["template"]["spec"]
    (group,) = pool["rayClusterSpec"]["workerGroupSpecs"]
    assert group["groupName"] == "workers"
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == 2
    spec = group["template"]["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": 1}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
    assert spec["runtimeClassName"] == "nvidia"


def test_variables_of_a_pool_reach_head_and_workers(chart, environment):
    cluster = chart(ci="gpu-pools").pools()["a100"]["rayClusterSpec"]
    for template in (cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]):
        assert environment(template)["NCCL_DEBUG"] == "WARN"


def test_a_pods_spec_is_merged_over_all(chart):
    spec = chart(ci="gpu-pools").pools()["h100"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert spec["schedulerName"] == "gang-scheduler"
    assert spec["hostIPC"] is False
    assert spec["containers"][0]["name"] == "ray"


def test_a_pool_can_be_taken_away_and_have_an_image_of_its_own(chart):
    values = {"pools": {"h100": {"enabled": False}, "a100": {"image": "mine/torch:2"}}}
    pools = chart(values, ci="gpu-pools").pools()
    assert set(pools) == {"cpu", "a100"}
    assert pools["a100"]["image"] == "mine/torch:2"
    worker = pools["a100"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    assert worker["image"] == "mine/torch:2"


def test_the_driver_waits_for_its_command(chart, environment):
    driver = chart().driver()
    assert driver["metadata"]["labels"]["app.kubernetes.io/component"] == "driver"
    spec = driver["spec"]
    assert spec["serviceAccountName"] == "espalier-driver"
    assert spec["restartPolicy"] == "Never"
    (container,) = spec["containers"]
    assert (container["name"], container["image"]) == ("driver", "espalier/core:0.1.0")
    assert "command" not in container
    assert "args" not in container
    assert container["resources"]["requests"] == {"cpu": "100m", "memory": "256Mi"}
    assert {"name": "pools", "mountPath": "/etc/espalier", "readOnly": True} in container["volumeMounts"]
    assert {"name": "pools", "configMap": {"name": "espalier-pools"}} in spec["volumes"]
    found = environment(driver)
    assert found["RAY_AUTH_MODE"] == "token"
    assert found["RAY_AUTH_TOKEN"] == {"secretKeyRef": {"name": "espalier-ray-token", "key": "auth_token"}}
    assert found["ESPALIER_STORE"] == "/var/espalier/store"


def test_settings_say_how_long_and_carry_the_labels_of_a_queue(chart):
    settings = json.loads(chart(ci="gpu-pools").one("ConfigMap", "espalier-pools")["data"]["settings.json"])
    assert settings == {
        "release": "espalier",
        "fullname": "espalier",
        "version": "0.1.0",
        "preRunningDeadlineSeconds": 900,
        "activeDeadlineSeconds": 86400,
        "ttlSecondsAfterFinished": 600,
        "labels": {"kueue.x-k8s.io/queue-name": "training"},
    }


def test_training_yields_to_the_endpoint_where_classes_are_made(chart):
    objects = chart(ci="gpu-pools")
    cluster = objects.pools()["a100"]["rayClusterSpec"]
    for template in (cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]):
        assert template["spec"]["priorityClassName"] == "espalier-training"
    assert objects.driver()["spec"]["priorityClassName"] == "espalier-training"
