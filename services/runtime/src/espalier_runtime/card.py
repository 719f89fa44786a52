"""The card: what a model folder says about itself, so that it can be opened without its spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from espalier_sdk.errors import DataError
from espalier_sdk.model import Quantise

CARD = "espalier.json"


def read_card(folder: Path) -> dict[str, Any]:
    """Reads what a model folder says about itself; DataError where it says nothing."""
    path = folder / CARD
    if not path.is_file():
        raise DataError(
            "is no model of Espalier: it has no espalier.json", file=str(folder), remedy="name a model/... ref"
        )
    card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return card


def quantised_as(card: dict[str, Any]) -> Quantise:
    """Returns how the base was kept that an adapter was trained on: whole, where the card says nothing of it."""
    kept: Quantise = card.get("quantise", "none")
    return kept
