"""`python -m espalier_evaluation`: measures a model, or the baselines, on one split of a dataset."""

from __future__ import annotations

from espalier_runtime.main import stage_main

from espalier_evaluation.stage import STAGE

if __name__ == "__main__":
    stage_main(STAGE)
