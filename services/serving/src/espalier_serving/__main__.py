"""Runs the endpoint: `python -m espalier_serving`."""

from __future__ import annotations

import sys

from espalier_serving.app import main

if __name__ == "__main__":
    sys.exit(main())
