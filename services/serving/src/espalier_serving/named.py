"""`python -m espalier_serving.named`: prints the models that variants name, so that a sweep of the store keeps them."""

from __future__ import annotations

import argparse
import json
import os
import sys

from espalier_runtime.main import print_errors
from espalier_sdk.errors import EspalierError
from sqlalchemy import select

from espalier_serving.database import DATABASE_VARIABLE, open_database
from espalier_serving.tables import Variant


def main() -> int:
    """Prints `{"models": [...]}`, retired variants left out, and returns the exit code."""
    parser = argparse.ArgumentParser(description="Prints the models that variants name.")
    database = os.environ.get(DATABASE_VARIABLE)
    parser.add_argument(
        "--database", default=database, required=not database, help=f"a path or URL; default: {DATABASE_VARIABLE}"
    )
    arguments = parser.parse_args()
    try:
        database = open_database(arguments.database)
    except EspalierError as error:
        print_errors(error, as_json=True)
        return error.exit_code
    try:
        with database.reading() as session:
            rows = session.scalars(select(Variant.model_ref).where(Variant.state != "retired")).all()
    finally:
        database.close()
    print(json.dumps({"models": sorted(set(rows))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
