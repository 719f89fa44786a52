"""What becomes of the errors that Ray Train hands over of its workers, without a Ray."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from espalier_sdk.errors import DataError
from espalier_training.on_ray import _cause

JOB: Any = SimpleNamespace(store="s3://bucket/store")
PEER = RuntimeError("Connection closed by peer [127.0.0.1]:20915")  # what gloo tells those that waited for it


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (ConnectionError("checkpoints cannot be kept: no answer"), "unreachable", 5),
        (OSError(28, "No space left on device", "/home/checkpoint-3"), "disk_full", 4),
        (DataError("is damaged", code="damaged"), "damaged", 4),
        (ValueError("a rank of 7"), "training_failed", 8),
    ],
)
def test_what_a_store_or_a_disk_answered_a_worker_is_no_failed_training(
    error: Exception, code: str, exit_code: int
) -> None:
    found = _cause([PEER, error], JOB)
    assert (found.problems[0].code, found.exit_code) == (code, exit_code)
