"""`python -m espalier_training`: trains a candidate (or its base, its data, its search, by --stage)."""

from __future__ import annotations

from espalier_runtime.main import stage_main

from espalier_training.stages import BASE, PREPARE, TRAIN, TUNE

if __name__ == "__main__":
    stage_main(TRAIN, TUNE, BASE, PREPARE)
