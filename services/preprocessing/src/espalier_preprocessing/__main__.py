"""Runs preprocessing alone: `python -m espalier_preprocessing --spec F --store URI --input corpus=REF`."""

from __future__ import annotations

from espalier_runtime.main import stage_main

from espalier_preprocessing.stage import STAGE

if __name__ == "__main__":
    stage_main(STAGE)
