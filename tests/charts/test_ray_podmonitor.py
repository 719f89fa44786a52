from __future__ import annotations


def test_there_is_none_by_default(chart):
    assert not chart().of("PodMonitor")


def test_it_scrapes_all_ray_pods_of_the_release(chart):
    monitor = chart(ci="restricted").one("PodMonitor", "espalier-ray")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"] == {
        "app.kubernetes.io/instance": "espalier",
        "ray.io/is-ray-node": "yes",
    }
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "interval": "15s"}]
