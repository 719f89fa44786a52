"""What cannot work is refused in one sentence with a remedy."""

from __future__ import annotations

import pytest

S3 = {"enabled": True, "bucket": "models"}
SQLITE = {"postgres": {"enabled": False}, "sqlite": True}
CASES = {
    "both databases": ({"database": {"existingSecret": {"name": "mine"}}}, "2 databases are chosen"),
    "no database": ({"database": {"postgres": {"enabled": False}}}, "0 databases are chosen"),
    "gateways on SQLite": (
        {"database": SQLITE, "serving": {"gateways": 2, "upgrade": "None"}},
        "serving.gateways is 2 and SQLite takes one",
    ),
    "SQLite twice": ({"database": SQLITE}, "set serving.upgrade to None"),
    "SQLite without a claim": (
        {"database": SQLITE, "serving": {"upgrade": "None"}, "storage": {"s3": S3}},
        "needs a claim that one host mounts",
    ),
    "SQLite on shared storage": (
        {"database": SQLITE, "serving": {"upgrade": "None"}, "storage": {"claim": {"accessModes": ["ReadWriteMany"]}}},
        "needs a claim that one host mounts",
    ),
    "no bucket": ({"storage": {"s3": {"enabled": True}}}, "set storage.s3.bucket"),
    "no place for MLflow's file": ({"storage": {"s3": S3}, "mlflow": {"enabled": False}}, "set mlflow.enabled to true"),
    "two MLflows": ({"mlflow": {"uri": "https://mlflow.example.com"}}, "set mlflow.enabled to false"),
    "GPUs on a claim of one host": (
        {"pools": {"a100": {"gpus": 1, "workers": 1}}},
        "pools.a100 has workers or GPUs and the claim can be mounted on one host only: use storage.s3, or a class",
    ),
    "pool workers on a claim of one host": ({"pools": {"wide": {"workers": 2}}}, "[ReadWriteMany]"),
    "variants on a claim of one host": ({"serving": {"workers": {"replicas": 2}}}, "serving.workers may be 2"),
    "scaling on a claim of one host": (
        {"serving": {"workers": {"autoscaling": {"enabled": True}}}},
        "serving.workers may be 4",
    ),
    "scaling backwards": (
        {
            "serving": {"workers": {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}}},
            "storage": {"s3": S3},
        },
        "minReplicas is 5, more than maxReplicas, 4",
    ),
    "GPUs without workers": (
        {"pools": {"a100": {"gpus": 1}}, "storage": {"s3": S3}},
        "set pools.a100.workers to 1 or more",
    ),
    "variants' GPUs without workers": (
        {"serving": {"workers": {"gpus": 1, "replicas": 0}}},
        "serving.workers.replicas is 0",
    ),
    "drains in the wrong order": (
        {"serving": {"drain": {"podSeconds": 200}}},
        "serving.drain.podSeconds is 200 and must be above 330",
    ),
    "an Ingress without a host": ({"serving": {"ingress": {"enabled": True}}}, "set serving.ingress.host"),
    "latest": ({"images": {"torch": {"tag": "latest"}}}, "images.torch.tag is latest"),
    "a pool's image without a tag": ({"pools": {"cpu": {"image": "mine/torch"}}}, "pools.cpu.image is mine/torch"),
    "Postgres latest": ({"database": {"postgres": {"image": "postgres:latest"}}}, "which names no version"),
    "no pool cpu": ({"pools": {"cpu": {"enabled": False}}}, "leave pools.cpu enabled"),
    "a pool's name": ({"pools": {"Big_One": {}}}, "pools.Big_One cannot be part of a name"),
    "a long name": ({"fullnameOverride": "a" * 41}, "has 41 characters and may have 40"),
    "a name that is no Service's": ({"fullnameOverride": "1st"}, "cannot be that of a Service"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_work_is_refused_with_a_remedy(chart, case):
    values, sentence = CASES[case]
    assert sentence in chart.refusal(values)


def test_a_cluster_without_kuberay_is_refused_with_the_command(chart):
    said = chart.refusal(known=())
    assert "the cluster does not know ray.io/v1: install KubeRay first (helm install kuberay-operator" in said


def test_the_longest_name_is_accepted(chart):
    name = "a" * 31
    assert len(f"{name}-espalier") == 40
    assert set(chart(name=name).of("RayService")) == {f"{name}-espalier"}
