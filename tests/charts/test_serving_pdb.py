from __future__ import annotations


def test_one_worker_has_none_since_it_would_block_drains(chart):
    assert not chart().of("PodDisruptionBudget")


def test_several_workers_go_one_by_one(chart):
    objects = chart(ci="gpu-pools")
    spec = objects.one("PodDisruptionBudget", "espalier-serving")["spec"]
    assert spec["maxUnavailable"] == 1
    chosen = spec["selector"]["matchLabels"]
    assert chosen.pop("ray.io/node-type") == "worker"
    assert chosen.pop("ray.io/is-ray-node") == "yes"
    cluster = objects.one("RayService", "espalier")["spec"]["rayClusterConfig"]
    labels = cluster["workerGroupSpecs"][0]["template"]["metadata"]["labels"]
    assert chosen.items() <= labels.items()
