"""`python -m espalier_pipeline.ray_head`: starts a local Ray, prints how to join it, and ends it with its parent."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys


def main() -> None:
    """Starts Ray with its own token, prints one JSON line with the environment for joining, waits for end of input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cpus", type=int, required=True)
    parser.add_argument("--memory-gib", type=float)
    arguments = parser.parse_args()
    from espalier_runtime.ray_session import ENVIRONMENT, LOCAL_ENVIRONMENT, NAMESPACE, NEW_RAY

    # A token of its own: other users of this machine cannot submit work, and nothing is written to the home folder.
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ.update({**ENVIRONMENT, **LOCAL_ENVIRONMENT, **token})
    import ray

    context = ray.init(
        address=NEW_RAY,
        num_cpus=arguments.cpus,
        _memory=int(arguments.memory_gib * 2**30) if arguments.memory_gib else None,
        include_dashboard=False,
        namespace=NAMESPACE,
        logging_level="WARNING",
        log_to_driver=False,
    )
    print(json.dumps({"RAY_ADDRESS": context.address_info["gcs_address"], **token}), flush=True)
    sys.stdin.buffer.read()
    ray.shutdown()


if __name__ == "__main__":
    main()
