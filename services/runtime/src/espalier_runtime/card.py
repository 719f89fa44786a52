"""The card: what a model folder says about itself, so that it can be opened without its spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from espalier_sdk.errors import DataError

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
