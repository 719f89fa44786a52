"""`python -m espalier_serving.named`: prints the models that variants name, so that a sweep of the store keeps them."""

from __future__ import annotations

import argparse
import json
import sys

from espalier_runtime.main import print_errors
from espalier_sdk.errors import EspalierError
from sqlalchemy import select

from espalier_serving.database import open_database
from espalier_serving.tables import Variant


def main() -> int:
    """Prints `{"models": [...]}`, retired variants left out, and returns the exit code."""
    parser = argparse.ArgumentParser(description="Prints the models that variants name.")
    parser.add_argument("--database", required=True, help="SQLAlchemy URL")
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
