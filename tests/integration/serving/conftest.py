"""What the integration tests of the endpoint share: one that runs, with a champion and a challenger."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from espalier_serving.testing.program import Served, propose_echoes, serving, wait_for


@pytest.fixture(scope="module")
def served(joined_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An endpoint with champion `a` and challenger `b`, whose experiment runs."""
    home = tmp_path_factory.mktemp("served")
    database = f"sqlite:///{home / 'endpoint.db'}"
    propose_echoes(
        database,
        a={"label": "A", "delay_seconds": 0.002},
        b={"label": "B", "delay_seconds": 0.002, "fails_on": "fail", "dies_on": "die", "slow_on": "slow"},
    )
    with serving(database, home, "--start-experiment", "support") as running:
        wait_for(lambda: running.client.get("/v1/endpoints/support").json()["experiment"])
        time.sleep(3.5)  # until the revision with the experiment is in force
        yield running
