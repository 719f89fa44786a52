"""Runs ingestion alone: `python -m espalier_ingestion --spec F --store URI [--data NAME]`."""

from __future__ import annotations

from espalier_runtime.main import stage_main

from espalier_ingestion.stage import STAGE

if __name__ == "__main__":
    stage_main(STAGE)
