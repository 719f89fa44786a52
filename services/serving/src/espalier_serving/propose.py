"""`python -m espalier_serving.propose`: records a proposal, as the serve stage of a pipeline makes it. Without Ray."""

from __future__ import annotations

import argparse
import json
import os
import sys

from espalier_runtime.main import print_errors
from espalier_sdk.errors import EspalierError

from espalier_serving.database import DATABASE_VARIABLE
from espalier_serving.proposing import propose


def main() -> int:
    """Reads the proposal as JSON, prints what was recorded as JSON, and returns the exit code."""
    parser = argparse.ArgumentParser(description="Records models as variants of an endpoint.")
    database = os.environ.get(DATABASE_VARIABLE)
    parser.add_argument(
        "--database", default=database, required=not database, help=f"a path or URL; default: {DATABASE_VARIABLE}"
    )
    parser.add_argument("--proposal", required=True, help="JSON: endpoint, task, variants, bootstrap, experiment")
    arguments = parser.parse_args()
    try:
        recorded = propose(arguments.database, **json.loads(arguments.proposal))
    except EspalierError as error:
        print_errors(error, as_json=True)
        return error.exit_code
    print(json.dumps(recorded))
    return 0


if __name__ == "__main__":
    sys.exit(main())
