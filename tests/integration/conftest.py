"""One Ray for all tests that a process of the integration layer runs: started at first need, ended with them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from espalier_pipeline.children import RayHead


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Starts a local Ray, puts its address into the environment, and returns what a process needs to join it."""
    if os.environ.get("RAY_ADDRESS"):
        yield {}
        return
    head = RayHead(cpus=2, memory_gib=None, log=tmp_path_factory.mktemp("ray") / "ray.log")
    environment = head.environment()
    os.environ.update(environment)
    yield environment
    for name in environment:
        os.environ.pop(name, None)
    head.stop()


@pytest.fixture(scope="module")
def joined_ray(ray_session: dict[str, str]) -> Iterator[None]:
    """Joins this process to the run's Ray for one module: a Serve client outlives the Serve that it was made for."""
    import ray
    from espalier_runtime.ray_session import Session

    Session().start()
    yield
    ray.shutdown()
