"""`python -m espalier_training`: trains a candidate (or fetches its base, or prepares its data, with --stage)."""

from __future__ import annotations

from espalier_runtime.main import stage_main

from espalier_training.stages import BASE, PREPARE, TRAIN

if __name__ == "__main__":
    stage_main(TRAIN, BASE, PREPARE)
