from __future__ import annotations

import pytest
from ruamel.yaml import YAML

ALL = {"storage": {"s3": {"enabled": True, "bucket": "models"}}}


def service(objects):
    return objects.one("RayService", "espalier")["spec"]


def test_head_holds_no_replicas_and_workers_hold_variants(chart):
    cluster = service(chart())["rayClusterConfig"]
    assert cluster["rayVersion"] == "2.60.0"
    assert cluster["headGroupSpec"]["rayStartParams"] == {"dashboard-host": "0.0.0.0", "num-cpus": "0"}
    (group,) = cluster["workerGroupSpecs"]
    assert (group["groupName"], group["replicas"], group["minReplicas"], group["maxReplicas"]) == ("variants", 1, 1, 1)
    assert group["rayStartParams"] == {}
    assert group["template"]["spec"]["containers"][0]["image"] == "espalier/torch:0.1.0"


def test_without_workers_the_head_takes_the_variants(chart):
    cluster = service(chart({"serving": {"workers": {"replicas": 0}}}))["rayClusterConfig"]
    assert cluster["headGroupSpec"]["rayStartParams"] == {"dashboard-host": "0.0.0.0"}
    assert "workerGroupSpecs" not in cluster


def test_ray_asks_for_the_token_of_the_chart_or_of_the_user(chart):
    assert service(chart())["rayClusterConfig"]["authOptions"] == {"mode": "token", "secretName": "espalier-ray-token"}
    given = service(chart({"ray": {"existingTokenSecret": "mine"}}))["rayClusterConfig"]["authOptions"]
    assert given["secretName"] == "mine"


def test_the_serve_config_is_one_application(chart):
    config = YAML(typ="safe").load(service(chart({**ALL, "serving": {"gateways": 3}}))["serveConfigV2"])
    assert config == {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": 8000, "request_timeout_s": 300},
        "applications": [
            {
                "name": "espalier",
                "route_prefix": "/",
                "import_path": "espalier_serving.cluster:application",
                "args": {"gateways": 3},
                "deployments": [{"name": "Gateway", "graceful_shutdown_timeout_s": 330}],
            }
        ],
    }


def test_ray_serve_accepts_the_config(chart):
    schema = pytest.importorskip("ray.serve.schema")
    config = YAML(typ="safe").load(service(chart())["serveConfigV2"])
    assert schema.ServeDeploySchema.model_validate(config).applications[0].route_prefix == "/"


def test_each_end_leaves_time_for_the_one_before(chart):
    spec = service(chart())
    assert spec["rayClusterDeletionDelaySeconds"] == 390
    assert spec["upgradeStrategy"] == {"type": "NewCluster"}
    templates = [group["template"] for group in spec["rayClusterConfig"]["workerGroupSpecs"]]
    for template in [spec["rayClusterConfig"]["headGroupSpec"]["template"], *templates]:
        assert template["spec"]["terminationGracePeriodSeconds"] == 360


def test_a_head_with_the_autoscaler_gets_its_token_and_a_restricted_sidecar(chart):
    cluster = service(chart(ci="s3"))["rayClusterConfig"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["securityContext"]["readOnlyRootFilesystem"] is True
    assert cluster["autoscalerOptions"]["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    assert cluster["headGroupSpec"]["template"]["spec"]["automountServiceAccountToken"] is True
    (group,) = cluster["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (1, 1, 6)
    assert group["template"]["spec"]["automountServiceAccountToken"] is False


def test_scaling_from_zero_keeps_the_workers_group(chart):
    scaling = {"enabled": True, "minReplicas": 0, "maxReplicas": 2}
    values = {**ALL, "serving": {"workers": {"autoscaling": scaling}}}
    (group,) = service(chart(values))["rayClusterConfig"]["workerGroupSpecs"]
    assert (group["replicas"], group["maxReplicas"]) == (0, 2)


def test_gpus_of_workers_are_limits(chart):
    cluster = service(chart(ci="gpu-pools"))["rayClusterConfig"]
    worker = cluster["workerGroupSpecs"][0]["template"]["spec"]
    assert worker["containers"][0]["resources"]["limits"] == {"cpu": "2", "memory": "3Gi", "nvidia.com/gpu": 1}
    assert worker["topologySpreadConstraints"][0]["topologyKey"] == "topology.kubernetes.io/zone"
    assert worker["priorityClassName"] == "espalier-serving"
    assert worker["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_the_database_is_prepared_before_the_head_starts(chart):
    head = service(chart())["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    (prepare,) = head["initContainers"]
    assert prepare["command"] == ["python", "-m", "espalier_serving.prepare", "--demo", "/opt/espalier/demo"]
    key = next(one for one in prepare["env"] if one["name"] == "ESPALIER_ADMIN_KEY")
    assert key["valueFrom"] == {"secretKeyRef": {"name": "espalier-keys", "key": "admin"}}
    without = service(chart({"demo": {"enabled": False}}))["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    assert without["initContainers"][0]["command"] == ["python", "-m", "espalier_serving.prepare"]


def test_redis_is_used_where_it_is_named(chart):
    assert "gcsFaultToleranceOptions" not in service(chart())["rayClusterConfig"]
    options = service(chart(ci="existing-postgres"))["rayClusterConfig"]["gcsFaultToleranceOptions"]
    secret = {"secretKeyRef": {"name": "redis", "key": "redis-password"}}
    assert options == {"redisAddress": "redis.data.svc:6379", "redisPassword": {"valueFrom": secret}}


def test_the_environment_says_where_everything_is(chart, environment):
    found = environment(service(chart())["rayClusterConfig"]["headGroupSpec"]["template"])
    assert found == {
        "ESPALIER_STORE": "/var/espalier/store",
        "ESPALIER_HOME": "/var/espalier",
        "ESPALIER_IMAGE": "espalier/torch:0.1.0",
        "ESPALIER_DATABASE_URL": {"secretKeyRef": {"name": "espalier-postgres", "key": "url"}},
        "MLFLOW_TRACKING_URI": "http://espalier-mlflow:5000",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "espalier_serving.proxying:middlewares",
        "HOME": "/tmp",
        "USER": "espalier",
    }


def test_an_object_store_is_in_the_environment(chart, environment):
    template = service(chart(ci="s3"))["rayClusterConfig"]["headGroupSpec"]["template"]
    found = environment(template)
    assert found["ESPALIER_STORE"] == "s3://models/espalier/prod"
    assert found["ESPALIER_HOME"] == "/tmp/espalier"
    assert found["AWS_ENDPOINT_URL"] == "https://minio.storage.svc:9000"
    assert found["AWS_REGION"] == "eu-central-1"
    assert found["AWS_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "minio-credentials", "key": "user"}}
    assert found["AWS_SECRET_ACCESS_KEY"] == {"secretKeyRef": {"name": "minio-credentials", "key": "password"}}
    assert found["AWS_CA_BUNDLE"] == found["SSL_CERT_FILE"] == "/etc/espalier-ca/ca.crt"
    assert {"name": "ca-bundle", "configMap": {"name": "company-ca"}} in template["spec"]["volumes"]
    assert not [volume for volume in template["spec"]["volumes"] if volume["name"] == "store"]


def test_files_are_named_where_nothing_else_is_chosen(chart, environment):
    found = environment(service(chart(ci="minimal"))["rayClusterConfig"]["headGroupSpec"]["template"])
    assert found["ESPALIER_DATABASE_URL"] == "sqlite:////var/espalier/espalier.db"
    assert found["MLFLOW_TRACKING_URI"] == "sqlite:////var/espalier/mlflow.db"


def test_settings_of_the_user_win(chart, environment):
    field = {"valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    values = {"extraEnv": {"NODE": field, "MLFLOW_TRACKING_URI": "http://mine"}, "pluginsAllow": "espalier-tasks"}
    found = environment(service(chart(values))["rayClusterConfig"]["headGroupSpec"]["template"])
    assert found["NODE"] == field["valueFrom"]
    assert found["MLFLOW_TRACKING_URI"] == "http://mine"
    assert found["ESPALIER_PLUGINS_ALLOW"] == "espalier-tasks"


def test_a_pod_spec_is_merged_last_also_where_it_says_no(chart):
    more = {"podSpec": {"enableServiceLinks": False, "securityContext": {"runAsUser": 7}, "volumes": []}}
    spec = service(chart({"serving": {"head": more}}))["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsUser"] == 7
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["volumes"] == []


def test_shared_memory_is_mounted_where_it_is_asked_for(chart):
    for ci, expected in ((None, []), ("gpu-pools", [{"medium": "Memory", "sizeLimit": "8Gi"}])):
        spec = service(chart(ci=ci))["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
        assert [volume["emptyDir"] for volume in spec["volumes"] if volume["name"] == "shm"] == expected
